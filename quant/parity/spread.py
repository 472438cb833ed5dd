"""How far two sound computations of one tensor may lie apart, element by element, before anything is compared.

What operators round is known from their terms (`parity_measures.rounding`) and, where the reference could be run with
such errors, from what became of them: sums that cancel, and several operators between two tensors that both links
have, make more of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitwright.quant.parity.link import Array, LinkTensor
from bitwright.quant.parity_measures.rounding import Rounding

# How often the power of what was drawn may lie above the limit that is taken for it.
_CONFIDENCE = 1e-3
_ONCE = Rounding(op="one operator", terms=1, ulps=1.0, format="float32")


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """What is known of a tensor before it is compared.

    Attributes:
        roundings: of the operators that make it from tensors that both links have.
        unrounded: what the reference's codes were rounded from.
        errors: one draw of what errors of rounding everywhere do to that, or to the tensor itself where it is real.
        coarse: whether the other link has codes and the reference none.
        weight_noise: the power that rounding takes from the weights on the way, of their own.
        gain: the power of an error on every term of its sums, relative to the term, over what it is of the result's:
            `sum((w x)**2) / sum(w x)**2`. Large where terms cancel.
    """

    roundings: tuple[Rounding, ...] = (_ONCE,)
    unrounded: Array | None = None
    errors: Array | None = None
    coarse: bool = False
    weight_noise: float = 0.0
    gain: float = 1.0

    @property
    def why(self) -> str:
        """The coarsest operator."""
        return str(max(self.roundings, key=lambda each: each.expected, default=_ONCE))

    @property
    def relative(self) -> float:
        """The standard deviation of the relative difference."""
        return math.sqrt(sum(each.expected**2 for each in self.roundings))


def spread(exact: Array, known: Explained, *, beside: float = 0.0) -> Array:
    """The standard deviation of the difference, float64 in the tensor's shape.

    It is relative to the element and to the tensor's root mean square: what cancels has been larger.

    Args:
        exact: of the reference, before it is rounded to codes.
        known: how it was made.
        beside: what else is off, relative to the element.
    """
    values = np.where(np.isfinite(exact), exact, 0).astype(np.float64)
    power = float(np.square(values).mean())
    relative = known.relative**2 + _drawn(power, known.errors)
    found: Array = np.sqrt(relative * (np.square(values) + power) + np.square(beside * values))
    return found


def _drawn(power: float, errors: Array | None) -> float:
    """The relative power of one draw of errors, at its upper confidence limit: few elements say little of it."""
    if errors is None or not errors.size or not power > 0:
        return 0.0
    from scipy.stats import chi2

    return float(np.square(errors).sum()) / float(chi2.ppf(_CONFIDENCE, errors.size)) / (2 * power)


def difference(nudged: Array, clean: Array) -> Array:
    """What errors did, float64; nothing where values are not finite or of another shape."""
    if nudged.shape != clean.shape or clean.dtype.kind not in "fiub":
        return np.zeros(0)
    with np.errstate(invalid="ignore"):
        found: Array = nudged.astype(np.float64) - clean
    return np.nan_to_num(found, posinf=0.0, neginf=0.0)


def explain(
    first: Mapping[str, LinkTensor], second: Mapping[str, LinkTensor], joined: Mapping[str, str], *, coarse: bool
) -> dict[str, Explained]:
    """What operators between them say of the tensors that two links have in common: the coarser of both sides.

    Args:
        first: the reference's.
        second: the other's.
        joined: the second link's name of each tensor of the first that both have.
        coarse: whether the other link has codes and the reference none.
    """
    found = {}
    for name, other in joined.items():
        sides = _between(first, name, frozenset(joined)), _between(second, other, frozenset(joined.values()))
        ways = [tuple(each.rounding for each in side if each.rounding is not None) for side in sides]
        roundings = max(ways, key=lambda way: sum(each.expected for each in way))
        noise = sum(each.weight_noise for each in sides[1])
        found[name] = Explained(roundings=roundings, coarse=coarse, weight_noise=noise)
    return found


def _between(tensors: Mapping[str, LinkTensor], name: str, common: frozenset[str]) -> list[LinkTensor]:
    """What makes a tensor from common ones, the nearest first."""
    seen: dict[str, LinkTensor] = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in seen and each in tensors:
            seen[each] = tensors[each]
            waiting += [read for read in tensors[each].reads if read not in common]
    return list(seen.values())
