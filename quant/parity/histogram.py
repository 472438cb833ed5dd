"""The values of a tensor on both sides, counted in the same bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitwright.quant.parity.link import Array

_BINS = 48


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Finite values of both sides.

    Attributes:
        edges: of the bins, one more than there are.
        expected: how many of the reference lie in each.
        found: how many of the other side.
    """

    edges: tuple[float, ...]
    expected: tuple[int, ...]
    found: tuple[int, ...]


def side_by_side(expected: Array, found: Array) -> Histogram | None:
    """Counts both; nothing where there are no finite numbers to count."""
    if {expected.dtype.kind, found.dtype.kind} - set("fiub"):
        return None
    sides = [each[np.isfinite(each)].astype(np.float64) for each in (expected, found)]
    both = np.concatenate(sides)
    if not both.size:
        return None
    edges = np.histogram_bin_edges(both, _BINS)
    first, second = (np.histogram(side, edges)[0] for side in sides)
    return Histogram(edges=tuple(map(float, edges)), expected=tuple(map(int, first)), found=tuple(map(int, second)))
