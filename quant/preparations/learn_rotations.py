"""Rotations inside attention that are learned: those of `rotate`, turned on until their channels have no outliers.

The sites and what is rotated are those of `rotate`. Of a rotation R of a head's results y the kurtosis

    k(R) = E[(y R)^4] / E[(y R)^2]^2

is made small (KurTail: Akhondzadeh et al. 2025, arXiv:2503.01483, there of whole streams): the length of a row is what
it was, so small fourth powers are small peaks. R = R_0 exp(A - A^T) stays orthogonal; it begins at the Hadamard or
random rotation, A at zero, and Adam follows the gradient. Queries and keys share R, and their kurtoses add up. Of no
rotation, the first one and the learned one each head gets that with the least error of rounding its results to the
scheme's format with a scale of their largest magnitude. Streams are turned as by `rotate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import TensorRef
from bitwright.quant.preparations.heads import HeadPair, find_head_pairs
from bitwright.quant.preparations.rotate import SEED, random_rotation, turn, turn_stream
from bitwright.quant.preparations.streams import find_streams
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import Granularity, QuantScheme

_STEPS, _RATE = 100, 0.02
_ROWS = 4096  # of a head's results; more say nothing new


class LearnRotations:
    """Looks at what the layers in front of the products give."""

    name = "learn_rotations"
    samples = 8

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module."""
        pairs = find_head_pairs(captured)
        made = _results(captured, {name for pair in pairs for name in _makers(pair)}, samples)
        generator, values = torch.Generator().manual_seed(SEED), dict(captured.values)
        for pair in pairs:
            for first, second in pair.blocks:
                places = (first, second)
                rows = [made[name][:, list(place)] for name, place in zip(_makers(pair), places, strict=False)]
                start = random_rotation(len(first), generator)
                choices = [torch.eye(len(first), dtype=torch.float64), start, learned(rows, start)]
                errors = [sum(_error(each @ rotation, scheme) for each in rows) for rotation in choices]
                turn(values, pair, first, second, choices[errors.index(min(errors))])
        for stream in find_streams(captured):
            if not stream.why_not:
                turn_stream(values, stream, random_rotation(stream.size, generator))
        return replace(captured, values=values)


def learned(rows: Sequence[torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """The rotation that makes the kurtoses of some tensors small.

    Args:
        rows: float64 `[n, D]` each; all are multiplied by the rotation from the right.
        start: where it begins, orthogonal, float64 `[D, D]`.

    Returns:
        float64 `[D, D]`, orthogonal.
    """
    with torch.enable_grad():
        skew = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([skew], lr=_RATE)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            rotation = start @ torch.matrix_exp(skew - skew.T)
            torch.stack([kurtosis(each @ rotation) for each in rows]).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return start @ torch.matrix_exp(skew.detach() - skew.detach().T)


def kurtosis(values: torch.Tensor) -> torch.Tensor:
    """`E[x^4] / E[x^2]^2` over all elements; `[]`. 1 at least, 3 of Gaussian values; 0 where all are 0."""
    square = values.square()
    power = square.mean().square()
    return torch.where(power > 0, square.square().mean() / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)


def _makers(pair: HeadPair) -> list[str]:
    """Names of the weights whose layers' results are rotated: queries' and keys', or values' alone."""
    return [pair.first[0]] if pair.reads else [pair.first[0], pair.second[0]]


def _results(captured: CapturedModel, weights: set[str], samples: Sequence[Arguments]) -> dict[str, torch.Tensor]:
    """What the layers with these weights give, float64 `[rows, out]`, evenly from all samples."""
    graph = captured.graph
    names: dict[TensorRef, str] = {}
    for ref, name in captured.value_refs.items():
        if name in weights:
            names.update((node.outputs[0], name) for node in graph.consumers[ref])
    found: dict[str, list[torch.Tensor]] = {name: [] for name in weights}

    def note(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in names:
            rows = values.reshape(-1, values.shape[-1])
            found[names[ref]].append(rows[:: max(1, -(-len(rows) * len(samples) // _ROWS))].double())
        return values

    state = captured.initial_state()
    for arguments in samples:
        captured.run(*arguments, state=state, transform=note)
    return {name: torch.cat(each) for name, each in found.items()}


def _error(values: torch.Tensor, scheme: QuantScheme) -> float:
    """Σ of squares that rounding to the scheme's activations, per tensor, leaves."""
    spec = replace(scheme.activations, granularity=Granularity.PER_TENSOR, block_size=None, dynamic=False)
    plain = values.float()
    return float((fake_quantize(plain, choose_qparams(plain.amin(), plain.amax(), spec)) - plain).square().sum())


PREPARATION = LearnRotations()
