"""Steps of a schedule on one system: which block, how many cycles, what a cut into stripes and slices would take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, BlockQuestion
from bitwright.hw_constraints.cost.ethos_u.blocks import choose_block
from bitwright.hw_constraints.cost.ethos_u.cycles import Operands, Place, op_cycles
from bitwright.hw_constraints.cost.ethos_u.figures import Channel, Hwc, Memory, System
from bitwright.hw_constraints.cost.ethos_u.operations import NpuOp, OpKind
from bitwright.hw_constraints.cost.ethos_u.step import Performance, Step, stripe_input
from bitwright.hw_constraints.cost.ethos_u.traffic import copy_cycles, input_channel, measure_access, read_cycles
from bitwright.hw_constraints.cost.ethos_u.weights import EncodedWeights, encode, encode_fast

FAST_DECODE = 32  # weights a cycle of the fast decoder [V]

# What was reckoned once is not reckoned again, in this network or in the next one with an operation of the same form.
REMEMBERED = 1 << 16
_steps: dict[tuple[Hashable, ...], dict[str, Any]] = {}
_performances: dict[tuple[Hashable, ...], Performance] = {}


def _remember(table: dict[tuple[Hashable, ...], Any], key: tuple[Hashable, ...], value: Any) -> None:
    if len(table) >= REMEMBERED:
        table.clear()
    table[key] = value


def forget() -> None:
    """Forgets every step and estimate."""
    _steps.clear()
    _performances.clear()


class _Cut(NamedTuple):
    """How an operation is cut, and where its operands are then; see `Costs.performance`."""

    block: Block
    stripe: int
    slices: tuple[int, ...]
    staged: bool = False
    slack: int = 0
    double: bool = False
    input_on_chip: bool = False


class Costs:
    """Steps and estimates of operations on one system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.configuration = system.configuration

    def step(self, op: NpuOp, rows: int) -> Step:
        """An operation in stripes of `rows` rows, nothing staged."""
        rows = op.shape[0] if op.chained else min(rows, op.shape[0])
        key = (self.system, op.form, rows)
        if key not in _steps:
            _remember(_steps, key, self._figures(op, rows))
        return Step(op=op, stripe=rows, **_steps[key])

    def _figures(self, op: NpuOp, rows: int) -> dict[str, Any]:
        """What a step is made of, without the operation itself: remembered figures keep no network alive."""
        area = stripe_input(op, rows)
        block = self.block(op, (rows, op.shape[1], op.shape[2]), area)
        whole = self.operands(op, op.shape, op.input_shapes[0])
        cycles = op_cycles(op, block, whole, self.configuration)
        weights = self.weights(op, block)
        cut = _Cut(block, rows, (0, op.shape[2]))
        return {
            "block": block,
            "weights": weights,
            "access": measure_access(op, block, op.shape, op.input_shapes[0]),
            "cycles": cycles,
            "slack_cycles": cycles,
            "performance": self._performance(op, weights, cut),
        }

    def block(self, op: NpuOp, shape: Hwc, area: Hwc) -> Block:
        """The block for results of one shape."""
        second = op.input_shapes[1] if len(op.input_shapes) > 1 else None
        if second is not None:
            second = (min(area[0], second[0]), min(area[1], second[1]), second[2])
        question = BlockQuestion(
            kind=op.kind,
            type=op.type,
            ofm=shape,
            ifm=area,
            ifm2=second,
            window=op.window,
            upscale=op.upscale,
            uses_table=op.uses_table,
        )
        return choose_block(self.configuration, question)

    def weights(self, op: NpuOp, block: Block) -> EncodedWeights | None:
        """The weights as this block reads them, in the format whose decoding takes least."""
        if op.weights is None:
            return None
        # The stream's order hangs on these of the block alone.
        read = Block(ofm=(0, 0, block.ofm[2]), ifm=(0, 0, 0), micro=block.micro, traversal=block.traversal)
        encoded = encode(op.weights, self.configuration, read, op.window.dilation)
        if not self.configuration.is_u85 or op.kind is not OpKind.CONVOLUTION:
            return encoded
        fast = encode_fast(encoded)
        return fast if self._decode_cycles(fast) < self._decode_cycles(encoded) else encoded

    def _decode_cycles(self, weights: EncodedWeights) -> int:
        """The decoder's rate (8 to 32 weights a cycle and core, by the share of zeros) or the bus's."""
        if weights.fast:
            decode, channel = weights.source // FAST_DECODE, Channel.FAST_WEIGHT
        else:
            share = max(min(weights.zero_share, 0.9), 0.5)
            each = int(8 + (share - 0.5) * (32 - 8) / 0.4) * self.configuration.cores
            decode, channel = weights.source // each, Channel.WEIGHT
        return max(decode, read_cycles(self.system.off_chip, channel, weights.weight_bytes, self.configuration))

    def operands(
        self,
        op: NpuOp,
        shape: Hwc,
        input_shape: Hwc,
        *,
        inputs: Sequence[Memory] = (),
        output: Memory | None = None,
        staged: bool = False,
    ) -> Operands:
        """Operands where they lie at first, unless other places are named."""
        home = self.system.feature_maps
        scales = None
        if op.weights is not None:
            scales = self.system.on_chip if staged else self.system.off_chip
        return Operands(
            shape=shape,
            input_shapes=(input_shape, *op.input_shapes[1:]),
            inputs=tuple(inputs) or (home,) * len(op.inputs),
            output=output or home,
            scales=scales,
        )

    def performance(
        self,
        step: Step,
        slices: Sequence[int],
        *,
        staged: bool = False,
        slack: int = 0,
        double: bool = False,
        input_on_chip: bool = False,
    ) -> Performance:
        """What a step takes when its channels are cut into slices.

        Args:
            step: the operation in its stripe.
            slices: borders of the output channels.
            staged: whether weights are read from on-chip memory.
            slack: cycles under which the first slice arrives.
            double: whether one slice arrives while another is read.
            input_on_chip: whether its input is staged.
        """
        cut = _Cut(step.block, step.stripe, tuple(slices), staged, slack, double, input_on_chip)
        key = (self.system, step.op.form, cut)
        if key not in _performances:
            _remember(_performances, key, self._performance(step.op, step.weights, cut))
        return _performances[key]

    def _performance(self, op: NpuOp, weights: EncodedWeights | None, cut: _Cut) -> Performance:
        repeats = max(1.0, op.shape[0] / cut.stripe)
        area = stripe_input(op, cut.stripe)
        memory = self.system.on_chip if cut.input_on_chip else self.system.feature_maps
        ifm_bytes, weight_bytes, fetches = self._reads(op, weights, cut, area)
        run, last, visible = self._slice_cycles(op, weights, cut, area, memory)
        weight_cycles = 0
        if weights is not None:
            source = self.system.on_chip if cut.staged else self.system.off_chip
            weight_cycles = read_cycles(source, channel(weights), weight_bytes // fetches, self.configuration) * fetches
        ifm_cycles = read_cycles(memory, input_channel(op), ifm_bytes, self.configuration)
        return Performance(
            ifm_read_bytes=ifm_bytes,
            ifm_bytes=math.prod(area),
            run_cycles=int(repeats * run),
            full_cycles=int(repeats * run) + visible,
            last_slice_cycles=last,
            visible_cycles=visible,
            weight_read_cycles=int(repeats * weight_cycles),
            ifm_read_cycles=int(repeats * ifm_cycles),
        )

    def _slice_cycles(
        self, op: NpuOp, weights: EncodedWeights | None, cut: _Cut, area: Hwc, memory: Memory
    ) -> tuple[int, int, int]:
        """Cycles of all slices, of the last one, and of waiting for weights where nothing hides it."""
        run = last = visible = 0
        slack = cut.slack
        inputs = (memory, *[self.system.feature_maps] * (len(op.inputs) - 1))
        for position, (first, end) in enumerate(itertools.pairwise(cut.slices)):
            place = Place.FIRST if position == 0 else Place.MIDDLE
            place |= Place.LAST if position == len(cut.slices) - 2 else Place.MIDDLE
            shape = (cut.stripe, op.shape[1], end - first)
            operands = self.operands(op, shape, area, inputs=inputs, staged=cut.staged)
            last = op_cycles(op, cut.block, operands, self.configuration, place)
            if weights is not None and cut.staged:
                size = weights.slice_bytes(first, end)
                moved = copy_cycles(self.system.off_chip, self.system.on_chip, size, self.configuration)
                visible += max(moved - slack, 0)
            run += last
            slack = last if cut.double else 0
        return run, last, visible

    def _reads(self, op: NpuOp, weights: EncodedWeights | None, cut: _Cut, area: Hwc) -> tuple[int, int, int]:
        """Input bytes, weight bytes and how many times weights are fetched, over all slices of a stripe."""
        ifm_bytes = weight_bytes = fetches = 0
        for first, end in itertools.pairwise(cut.slices):
            access = measure_access(op, cut.block, (cut.stripe, op.shape[1], end - first), area)
            ifm_bytes += access.reads[0]
            if weights is not None:
                weight_bytes += weights.slice_bytes(first, end) * access.refetches
                fetches += access.refetches
        return ifm_bytes, weight_bytes, fetches


def channel(weights: EncodedWeights) -> Channel:
    """The channel that weights are read through."""
    return Channel.FAST_WEIGHT if weights.fast else Channel.WEIGHT


def depth_granule(block: Block, *, is_u85: bool) -> int:
    """The least number of output channels that a slice may have."""
    return max(16, block.micro[2]) if is_u85 else 16
