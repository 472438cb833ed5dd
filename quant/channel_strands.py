"""Along which axes the channels of a tensor run, and which channels of different tensors are one and the same.

A *strand* is an integer array with the rank of its tensor and, on every axis, either the tensor's size or 1: at each
place it says which channel lies there. A convolution's result has the strand `[1, C, 1, 1]`; flattened, it is
`[1, C * H * W]`, where each channel stands `H * W` times; queries of attention have `[1, heads, 1, size]`. Strands of
one tensor run along different axes. Channels that must be one are united; the classes are found at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Strand = npt.NDArray[np.int64]


class Channels:
    """Channels as numbers, and which of them are one (connected components of what was united).

    Attributes:
        fixed: channels that cannot be taken out, each with the reason.
        inexact: channels that can, but not without changing others (statistics over channels), likewise.
    """

    def __init__(self) -> None:
        self.count = 0
        self.fixed: dict[int, str] = {}
        self.inexact: dict[int, str] = {}
        self._pairs: list[npt.NDArray[np.int64]] = []

    def fresh(self, shape: Sequence[int]) -> Strand:
        """New channels, one for each place of `shape`."""
        size = math.prod(shape)
        self.count += size
        return np.arange(self.count - size, self.count).reshape(shape)

    def unite(self, left: Strand, right: Strand) -> None:
        """Makes channels one that stand at the same place; the two broadcast against each other."""
        a, b = np.broadcast_arrays(left, right)
        pairs = np.stack([a.ravel(), b.ravel()])
        self._pairs.append(np.unique(pairs[:, pairs[0] != pairs[1]], axis=1))

    def collapse(self, strand: Strand, axes: Iterable[int]) -> Strand:
        """Makes channels one along every axis but `axes`; a strand that only runs along these."""
        kept = set(axes)
        first = strand[tuple(slice(None) if axis in kept else slice(0, 1) for axis in range(strand.ndim))]
        self.unite(strand, first)
        return first

    def fix(self, strand: Strand, reason: str) -> None:
        """Says that channels stay."""
        for channel in np.unique(strand).tolist():
            self.fixed.setdefault(channel, reason)

    def say_inexact(self, strand: Strand, reason: str) -> None:
        """Says that taking these channels out changes what is computed from the others."""
        for channel in np.unique(strand).tolist():
            self.inexact.setdefault(channel, reason)

    def classes(self) -> npt.NDArray[np.int64]:
        """The class of each channel: channels of one class are one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate([np.zeros((2, 0), dtype=np.int64), *self._pairs], axis=1)
        self._pairs = [pairs]
        ones = np.ones(pairs.shape[1], dtype=np.int8)
        matrix = coo_array((ones, (pairs[0], pairs[1])), shape=(self.count, self.count))
        found: Any = connected_components(matrix, directed=False)[1]
        return np.asarray(found, dtype=np.int64)


def axes_of(strand: Strand) -> tuple[int, ...]:
    """The axes that a strand runs along."""
    return tuple(axis for axis, size in enumerate(strand.shape) if size > 1)


def along(vector: npt.NDArray[np.int64], axis: int, rank: int) -> Strand:
    """A vector of channels as a strand along one axis."""
    return vector.reshape([-1 if each == axis % rank else 1 for each in range(rank)])


def slab_axis(classes: Strand) -> int | None:
    """The axis along which classes differ, when they do along one only (or along none: the longest); else None."""
    for axis in sorted(axes_of(classes), key=lambda each: -classes.shape[each]):
        first = classes[tuple(slice(None) if each == axis else slice(0, 1) for each in range(classes.ndim))]
        if (classes == first).all():
            return axis
    return None


def reshaped(strand: Strand, before: Sequence[int], after: Sequence[int]) -> Strand | None:
    """What a strand becomes when its tensor is reshaped; None where the shapes cannot be matched."""
    segments = _segments(before, after)
    if segments is None:
        return None
    full, result = list(strand.shape), [1] * len(after)
    for own, new in segments:
        if any(strand.shape[axis] > 1 for axis in own):
            for axis in own:
                full[axis] = before[axis]
            for axis in new:
                result[axis] = after[axis]
    return _without_repeats(np.broadcast_to(strand, full).reshape(result))


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Shortest runs of axes with as many elements before and after: ([axes before], [axes after])."""
    segments = []
    i = j = 0
    while i < len(before) or j < len(after):
        own, new = [], []
        left = right = 1
        while True:
            if i < len(before) and (left <= right or j == len(after)):
                left *= before[i]
                own.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            else:
                return None
            if left == right and (new or j == len(after)):
                break
        segments.append((own, new))
    return segments


def _without_repeats(strand: Strand) -> Strand:
    """Axes along which all channels are the same are no axes of it."""
    for axis in axes_of(strand):
        first = strand.take([0], axis=axis)
        if (strand == first).all():
            strand = first
    return strand
