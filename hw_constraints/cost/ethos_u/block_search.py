"""What the choice of a block hangs on, what comes of it, and the search by traffic that both families share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.cost.ethos_u.figures import Hwc, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind, Window

Granules = tuple[int | npt.NDArray[np.int64], int | npt.NDArray[np.int64], int | npt.NDArray[np.int64]]  # Hwc, or many

SPLIT_DEPTH = 16  # output channels come in multiples of 16 [V]


class Traversal(StrEnum):
    """In which order a convolution goes through channels and taps."""

    DEPTH_FIRST = "depth_first"  # all channels of a tap, then the next tap
    KERNEL_FIRST = "kernel_first"  # all taps of a few channels: better for shallow inputs
    DEPTHWISE = "depthwise"


@dataclass(frozen=True, kw_only=True)
class Block:
    """How one operation is cut.

    Attributes:
        ofm: output block.
        ifm: input block that feeds it.
        micro: outputs computed at once.
        traversal: order through channels and taps.
    """

    ofm: Hwc
    ifm: Hwc
    micro: Hwc
    traversal: Traversal


@dataclass(frozen=True, kw_only=True)
class BlockQuestion:
    """What the choice of a block hangs on."""

    kind: OpKind
    type: str
    ofm: Hwc
    ifm: Hwc
    ifm2: Hwc | None
    window: Window
    upscale: int
    uses_table: bool


def required_input(results: int, stride: int, extent: int, upscale: int = 1) -> int:
    """Input positions that `results` neighbouring results read along one axis."""
    rounding = 1 if upscale > 1 else 0
    return math.ceil(((results - 1) * stride + extent + rounding) / upscale)


def input_area(window: Window, rows: int, columns: int, upscale: int = 1) -> tuple[int, int]:
    """Input rows and columns of one block; taps beyond the subkernel's 8 come with the next pass."""
    extent = [min(size, 8) for size in window.extent]
    return (
        required_input(rows, window.stride[0], extent[0], upscale),
        required_input(columns, window.stride[1], extent[1], upscale),
    )


class Best:
    """The cheapest block so far; of equal ones a later small one that covers the input better."""

    def __init__(self, ifm: Hwc, prefer_cover: bool = False) -> None:
        self.input = ifm
        self.prefer_cover = prefer_cover
        self.cost = math.inf
        self.coverage = math.inf
        self.ofm: Hwc = (0, 0, 0)
        self.ifm: Hwc = (0, 0, 0)

    def offer(
        self,
        cost: npt.NDArray[np.float64],
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        depth: int,
        ifm: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
        ifm_depth: int,
    ) -> None:
        """All blocks of one depth, in the order of rows, then columns."""
        least = float(cost.min())
        if least > self.cost or math.isinf(least):
            return
        for position in np.flatnonzero(cost.ravel() == least):
            block = (int(rows.flat[position]), int(columns.flat[position]), depth)
            fed = (int(ifm[0].flat[position]), int(ifm[1].flat[position]), ifm_depth)
            if least < self.cost:
                self.cost, self.coverage, self.ofm, self.ifm = least, math.inf, block, fed
                continue
            covered = min(self.input[0], fed[0]) * min(self.input[1], fed[1])
            coverage = self.input[0] * self.input[1] / max(covered, 1)
            if coverage <= self.coverage and ((block[0] <= 4 and block[1] <= 4) or self.prefer_cover):
                self.coverage, self.ofm, self.ifm = coverage, block, fed


def depths(first: int, last: int, full: int, step: int) -> Iterator[int]:
    """Output depths to try: multiples of 16 until the whole depth fits."""
    depth = round_up(first, SPLIT_DEPTH) if first < full else first
    while depth <= last:
        yield depth
        depth += step
        if depth < full:
            depth = round_up(depth, SPLIT_DEPTH)


def ifm_area(
    question: BlockQuestion,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    unit: Granules,
    upscale: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Input rows and columns of each output block, in whole allocation units."""
    sizes = []
    for axis, results in ((0, rows), (1, columns)):
        extent = min(question.window.extent[axis], 8)
        rounding = 1 if upscale > 1 else 0
        needed = -(-((results - 1) * question.window.stride[axis] + extent + rounding) // upscale)
        sizes.append(-(-needed // unit[axis]) * unit[axis])
    return sizes[0], sizes[1]


def fetch_cost(
    question: BlockQuestion,
    ifm: Hwc,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    depth: int,
    block_ifm: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    same_depth: bool,
) -> npt.NDArray[np.float32]:
    """Input and weight elements fetched per output element.

    Weights are fetched once for each block of rows and columns; the input once for each block of channels.
    """
    single = np.float32
    out_rows, out_columns, out_depth = question.ofm
    blocks_y, blocks_x = single(out_rows) / rows.astype(single), single(out_columns) / columns.astype(single)
    blocks_z = single(out_depth) / single(depth)
    full = np.ceil(blocks_y) * np.ceil(blocks_x)
    weighted = question.kind in (OpKind.CONVOLUTION, OpKind.DEPTHWISE)
    weights = single(question.window.taps * ifm[2] if weighted else 0) * full
    if question.kind is not OpKind.DEPTHWISE:
        weights = weights * (blocks_z * single(depth))
    passes = ceil_div(question.window.extent[0], 8) * ceil_div(question.window.extent[1], 8)
    fetched = (block_ifm[0] * block_ifm[1] * ifm[2] * passes).astype(single) * blocks_y * blocks_x
    if not same_depth:
        fetched = fetched * np.ceil(blocks_z)
    return np.asarray((fetched + weights) / single(math.prod(question.ofm)), dtype=np.float32)
