"""Blocks of Ethos-U55 and U65: one micro-block, and one RAM that inputs, accumulators and lookup tables share."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.cost.ethos_u.block_search import (
    SPLIT_DEPTH,
    Best,
    Block,
    BlockQuestion,
    Traversal,
    depths,
    fetch_cost,
    ifm_area,
)
from bitwright.hw_constraints.cost.ethos_u.figures import Configuration, Hwc, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind


def choose_u55_block(configuration: Configuration, question: BlockQuestion) -> Block:
    """The block with the least traffic per result that fits the shared RAM.

    The RAM holds two input buffers, two accumulator buffers (none for elementwise operations), the output buffer and
    a lookup table. Cost: input and weight elements fetched per output element; see `fetch_cost`.
    """
    micro = configuration.micro_blocks[0]
    ifm = max((question.ifm, question.ifm2 or question.ifm), key=math.prod)
    traversal = _traversal(question, ifm)
    same_depth = question.kind in (OpKind.ELEMENTWISE, OpKind.POOLING, OpKind.DEPTHWISE)
    limits = [round_up(min(question.ofm[axis], configuration.largest_block[axis]), micro[axis]) for axis in range(3)]
    rows, columns = np.meshgrid(
        np.arange(micro[0], limits[0] + 1, micro[0]), np.arange(micro[1], limits[1] + 1, micro[1]), indexing="ij"
    )
    ifm_depth = round_up(min(ifm[2], 16 if traversal is Traversal.KERNEL_FIRST else 32), configuration.ifm_depth)
    best = Best(ifm)
    for depth in depths(max(micro[2], min(limits[2], SPLIT_DEPTH)), limits[2], question.ofm[2], micro[2]):
        block_ifm = ifm_area(question, rows, columns, micro, question.upscale)
        block_depth = depth if same_depth else ifm_depth
        fits = _fits_u55(configuration, question, rows, columns, depth, block_ifm, block_depth)
        cost = fetch_cost(question, ifm, rows, columns, depth, block_ifm, same_depth)
        if question.kind is OpKind.ELEMENTWISE:
            cost = np.float32(math.prod(question.ofm)) / (rows * columns * depth).astype(np.float32)
        cost = np.where(math.prod(ifm) < block_ifm[0] * block_ifm[1] * block_depth * 2, cost / np.float32(2), cost)
        best.offer(np.where(fits, cost, np.inf), rows, columns, depth, block_ifm, block_depth)
    return Block(ofm=best.ofm, ifm=best.ifm, micro=micro, traversal=traversal)


def _traversal(question: BlockQuestion, ifm: Hwc) -> Traversal:
    """Kernel first where it uses the MAC array at least as well as depth first (always up to 8 channels)."""
    if question.kind is OpKind.DEPTHWISE:
        return Traversal.DEPTHWISE
    if question.kind is not OpKind.CONVOLUTION:
        return Traversal.DEPTH_FIRST
    depth, taps = ifm[2], question.window.taps
    by_depth = depth / round_up(depth, 32)
    by_kernel = depth / round_up(depth, 8) * (taps / round_up(taps, 4))
    return Traversal.KERNEL_FIRST if depth <= 8 or by_kernel >= by_depth else Traversal.DEPTH_FIRST


def _fits_u55(
    configuration: Configuration,
    question: BlockQuestion,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    depth: int,
    ifm: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    ifm_depth: int,
) -> npt.NDArray[np.bool_]:
    """Banks of 1 KiB: 2 for results, 2 or the table's at the end; input and accumulators are double."""
    elementwise = question.kind is OpKind.ELEMENTWISE
    granule = configuration.elementwise_granule if elementwise else configuration.ifm_granule
    ifm_banks = _banks(ifm[0] * ifm[1] * round_up(ifm_depth, 8), granule)
    reserved = 2 if configuration.banks > 16 else 0
    free = configuration.banks - max(2 if question.uses_table else 0, reserved) - 2
    if elementwise:
        second = question.ifm2 is not None and math.prod(question.ifm2) > 1 and math.prod(question.ifm) > 1
        full = second or (question.ifm2 is None and math.prod(question.ifm) > 1)
        return np.asarray(ifm_banks * (2 if full else 1) <= free)
    if question.window.kernel[0] == 1 and question.ofm[0] == 1 and configuration.micro_blocks[0][0] == 2:
        rows = np.minimum(rows, question.ofm[0])
    accumulators = _banks(rows * columns * round_up(depth, 8) * 4, configuration.accumulator_granule)
    return np.asarray(ifm_banks + accumulators <= free)


def _banks(size: npt.NDArray[np.int64], granule: int) -> npt.NDArray[np.int64]:
    banks = -(-size // 1024) * 2
    return np.asarray(-(-banks // granule) * granule)
