"""A window that slides over the spatial axes of a tensor: where each of its taps reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Index = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a convolution's or pool's window moves; each per spatial axis.

    Attributes:
        kernel: taps.
        stride: from one result to the next.
        padding: before and after.
        dilation: from one tap to the next.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """The padding of `[batch, channels, …]`, as NumPy takes it."""
        return ((0, 0), (0, 0), *self.padding)

    def results(self, padded: Sequence[int]) -> tuple[int, ...]:
        """How many positions it has along each axis of that length, padding included."""
        along = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple((length - (taps - 1) * apart - 1) // stride + 1 for length, taps, stride, apart in along)

    def taps(self, padded: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Index]]:
        """Each tap, with the index that picks what it reads at all positions from `[batch, channels, …]`."""
        sizes = self.results(padded)
        for tap in itertools.product(*map(range, self.kernel)):
            along = zip(tap, self.dilation, sizes, self.stride, strict=True)
            reads = (slice(at * apart, at * apart + (size - 1) * step + 1, step) for at, apart, size, step in along)
            yield tap, (slice(None), slice(None), *reads)
