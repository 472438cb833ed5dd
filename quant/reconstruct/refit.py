"""Weights and biases fitted to the inputs that a layer gets from the quantized network in front of it.

Least squares with a ridge towards the weights that the network came with (`D = E[d x^T]`, `H = E[x x^T]`):

    W' = W + D (H + r mean(diag H) I)^-1

undoes what is linear in the error that arrives (asymmetric calibration, as in He et al. 2017, Channel Pruning, section
3.1.1; of weights only, in float). How much of that is real and how much is chance is tried on samples that were not
used: two halves, each fitted on the one and tried on the other. Each row takes the ridge that leaves least there,
or a new bias alone, or nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from bitwright.quant.reconstruct.moments import HALVES, Moments, factored

# From "follow the data" to "hardly anything", in shares of the mean square of the inputs.
RIDGES = (1e-3, 1e-2, 0.1, 1.0, 10.0)
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Fit:
    """What to add.

    Attributes:
        change: to the weight, float64 `[G, R, K]`.
        follows: which rows' biases follow the mean of what is missing; of the others only that of the change.
    """

    change: torch.Tensor
    follows: torch.Tensor


def refit(halves: list[Moments], ridges: Sequence[float] = RIDGES, *, bias: bool) -> Fit:
    """Chooses for every row by cross-validation; of the halves their sum is left (`sum_of_`).

    Args:
        halves: moments of the samples in turn; a half without samples leaves nothing to try on.
        ridges: which to try; with none only the bias is in question.
        bias: whether the layer has a bias of its own.
    """
    kept = torch.zeros(halves[0].cross.shape, dtype=torch.float64)
    if len(halves) < HALVES or any(half.weight == 0 for half in halves):
        return Fit(kept, torch.zeros_like(halves[0].square, dtype=torch.bool))
    error = torch.zeros(len(ridges) + 2, *halves[0].square.shape, dtype=torch.float64)
    for held_out, half in enumerate(halves):
        rest = sum_of([other for index, other in enumerate(halves) if index != held_out])
        error[0] += half.square
        trials = ridge_solutions(rest, ridges, bias=bias, dtype=torch.float32)  # only to be compared
        for index, change in enumerate(itertools.chain([kept], trials), start=1):
            error[index] += half.error(change, shift_of(rest, change, bias=bias))
    best = error.argmin(0)
    change = kept
    wanted = [ridge for index, ridge in enumerate(ridges, start=2) if (best == index).any()]
    for ridge, found in zip(wanted, ridge_solutions(sum_of_(halves), wanted, bias=bias), strict=True):
        change = torch.where((best == ridges.index(ridge) + 2)[:, :, None], found.double(), change)
    return Fit(change, best > 0)


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Of several sets of samples."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def sum_of_(parts: list[Moments]) -> Moments:
    """The sum, which alone is left of the parts: those of a wide layer have a hundred megabytes each."""
    while len(parts) > 1:
        parts[0].add_(parts.pop())
    return parts[0]


def ridge_solutions(
    moments: Moments, ridges: Sequence[float], *, bias: bool, dtype: torch.dtype | None = None
) -> Iterator[torch.Tensor]:
    """The change of the weight for each ridge, `[G, R, K]`; none where inputs say nothing."""
    for ridge in ridges:
        hessian, cross = moments.centred(bias=bias, dtype=dtype)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        diagonal += (ridge * diagonal.mean(1) + _TINY)[:, None]
        factor, exists = factored(hessian)
        del hessian, diagonal
        # Not `cholesky_solve`, which copies the factor.
        half_way = torch.linalg.solve_triangular(factor, cross.mT, upper=False)
        found = torch.linalg.solve_triangular(factor.mT, half_way, upper=True).mT
        del factor
        yield torch.where(exists[:, None, None], found, torch.zeros((), dtype=found.dtype))


def shift_of(moments: Moments, change: torch.Tensor, *, bias: bool) -> torch.Tensor:
    """What a bias has to add beside a changed weight so that the means agree, `[G, R]`; 0 without a bias."""
    x, d = moments.means()
    return d - (change * x[:, None]).sum(2) if bias else torch.zeros_like(d)
