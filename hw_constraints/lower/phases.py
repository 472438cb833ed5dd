"""A transposed convolution of stride s as the s² convolutions of stride 1 that make its phases.

Result `o` sums `x[i] w[t]` over `i s = o + p - t`. With `o = s r + a`, in phase `a`, only the taps
`t = (a + p) mod s + s j` meet an input, `i = r + (a + p) div s - j`: each phase is a convolution of stride 1 with
shifts of its own (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.lower.integer_ops import Array
from bitwright.hw_constraints.lower.work_of import sizes_of
from bitwright.quant.graph import Graph, Node

Pair = tuple[int, int]
Tap = tuple[Pair, Pair]  # where in the kernel, and by how many positions its input lies from the result's


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The phases of one call over rows and columns; of an image with one axis, rows have one phase.

    Attributes:
        stride: results for each input position, along both axes.
        padding: what is cut off in front.
        kernel: taps along both axes.
    """

    stride: Pair
    padding: Pair
    kernel: Pair

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Phases:
        """Of a transposed convolution over one or two axes, without dilation."""
        kernel = [size or 1 for size in graph.tensors[node.tensors[1]].shape[2:]]
        stride = sizes_of(node.attributes.get("stride"), len(kernel), 1)
        padding = sizes_of(node.attributes.get("padding"), len(kernel), 0)
        if len(kernel) == 1:
            kernel, stride, padding = [1, *kernel], [1, *stride], [0, *padding]
        return cls(stride=(stride[0], stride[1]), padding=(padding[0], padding[1]), kernel=(kernel[0], kernel[1]))

    @property
    def count(self) -> int:
        """How many there are."""
        return math.prod(self.stride)

    def within(self, channels: slice, all_channels: int) -> Iterator[tuple[Pair, slice]]:
        """The phases of a tile's results, which lie one phase behind the other, and which channels of each it has."""
        each = all_channels // self.count
        for number, phase in enumerate(itertools.product(range(self.stride[0]), range(self.stride[1]))):
            start, stop = (min(max(end - number * each, 0), each) for end in (channels.start, channels.stop))
            if start < stop:
                yield phase, slice(start, stop)

    def taps(self, phase: Pair) -> list[Tap]:
        """The taps that meet an input in a phase; none where the stride is longer than the kernel."""
        along = []
        for a, stride, padding, kernel in zip(phase, self.stride, self.padding, self.kernel, strict=True):
            first, moved = (a + padding) % stride, (a + padding) // stride
            along.append([(tap, moved - number) for number, tap in enumerate(range(first, kernel, stride))])
        return [((y, x), (down, right)) for (y, down), (x, right) in itertools.product(*along)]

    def weights(self, stored: Array, groups: int, taps: list[Tap]) -> Array:
        """Weights `[in, out / groups, kernel...]` of some taps as `[groups, out, in, taps]`."""
        grouped = stored.reshape(groups, -1, stored.shape[1], *self.kernel)
        return np.moveaxis(np.stack([grouped[..., y, x] for (y, x), _ in taps], axis=-1), 1, 2)

    def results(self, positions: Array, groups: int) -> Array:
        """Results `[N, C, rows, columns]` as `[N, groups, phases · out, rows, columns]` of phases; -1 where none is."""
        n, channels, height, width = positions.shape
        rows, columns = (-(-size // stride) for size, stride in zip((height, width), self.stride, strict=True))
        (down, right), whole = self.stride, [(0, 0), (0, 0)]
        padded = np.pad(
            positions, [*whole, (0, rows * down - height), (0, columns * right - width)], constant_values=-1
        )
        cut = padded.reshape(n, groups, channels // groups, rows, down, columns, right)
        return cut.transpose(0, 1, 4, 6, 2, 3, 5).reshape(n, groups, -1, rows, columns)
