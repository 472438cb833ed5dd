"""One operation in a schedule: its block, its stripe, its weights, and what running it so is estimated to take."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, BlockQuestion, required_input
from bitwright.hw_constraints.cost.ethos_u.blocks import choose_block
from bitwright.hw_constraints.cost.ethos_u.cycles import Operands, Place, op_cycles
from bitwright.hw_constraints.cost.ethos_u.figures import Channel, Hwc, Memory, System, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind
from bitwright.hw_constraints.cost.ethos_u.traffic import (
    Access,
    copy_cycles,
    input_channel,
    measure_access,
    read_cycles,
)
from bitwright.hw_constraints.cost.ethos_u.weights import EncodedWeights, encode, encode_fast

FAST_DECODE, FEW_DECODE = 32, 64  # weights a cycle of the fast decoder; with fewer than 16 distinct values [V]


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What an operation is estimated to take, cut into stripes and slices.

    Attributes:
        ifm_read_bytes: input bytes fetched.
        ifm_bytes: size of the input of one stripe.
        run_cycles: computing.
        full_cycles: computing, and waiting for slices of weights.
        last_slice_cycles: of the last slice, under which the next operation's weights can arrive.
        visible_cycles: waiting for slices of weights.
        weight_read_cycles: reading all weights as often as needed.
        ifm_read_cycles: reading the input as often as needed.
    """

    ifm_read_bytes: int
    ifm_bytes: int
    run_cycles: int
    full_cycles: int
    last_slice_cycles: int
    visible_cycles: int
    weight_read_cycles: int
    ifm_read_cycles: int

    @property
    def compute_bound(self) -> bool:
        """Whether computing takes longer than either reading."""
        return self.run_cycles > self.weight_read_cycles and self.run_cycles > self.ifm_read_cycles

    @property
    def ifm_ratio(self) -> float:
        """Cycles of input reads to those of weights."""
        return self.ifm_read_cycles / self.weight_read_cycles if self.weight_read_cycles else 1.0


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Weights staged on chip before they are read.

    Attributes:
        parts: bytes of one buffer, or of two that alternate.
        ahead: whether the first slice arrives while the operation before still runs.
        slices: borders of the output channels, from 0 to all.
    """

    parts: tuple[int, ...]
    ahead: bool
    slices: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of all parts."""
        return sum(self.parts)


@dataclass(frozen=True, kw_only=True)
class Step:
    """An operation as one schedule runs it.

    Attributes:
        op: the operation.
        stripe: rows of the output that are computed at once; all of them without a cascade.
        block: which it runs in.
        weights: as encoded for that block; None without.
        access: elements moved.
        cycles: computing, all at once, from where everything lies at first.
        performance: estimate of the stripe or slices.
        transfer_cycles: of moving all weights on chip.
        buffer: staged weights.
        slack_cycles: under which the next operation's weights can arrive.
        slack_bytes: on chip that are free meanwhile.
        cascade: the cascade's last operation's index; -1 outside.
        leads: whether it is the first of its cascade.
        prefers_input: whether keeping its input on chip was preferred.
    """

    op: NpuOp
    stripe: int
    block: Block
    weights: EncodedWeights | None
    access: Access
    cycles: int
    performance: Performance
    transfer_cycles: int = 0
    buffer: Buffer | None = None
    slack_cycles: int = 0
    slack_bytes: int = 0
    cascade: int = -1
    leads: bool = False

    @property
    def in_cascade(self) -> bool:
        """Whether it runs in stripes with its neighbours."""
        return self.cascade >= 0

    @property
    def reads_rolling(self) -> bool:
        """Whether its input is a rolling buffer of a cascade."""
        return self.in_cascade and not self.leads

    @property
    def buffer_bytes(self) -> int:
        """Of staged weights."""
        return self.buffer.bytes if self.buffer else 0

    @property
    def stripe_input(self) -> Hwc:
        """The input of one stripe."""
        return stripe_input(self.op, self.stripe)

    @cached_property
    def stripes(self) -> int:
        """How many stripes there are."""
        return ceil_div(self.op.shape[0], self.stripe)

    def changed(self, **changes: object) -> Step:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def stripe_input(op: NpuOp, rows: int) -> Hwc:
    """Rows, columns and channels of the first operand that `rows` results read."""
    height, width, channels = op.input_shapes[0]
    if rows >= op.shape[0]:
        return height, width, channels
    needed = required_input(rows, op.window.stride[0], op.window.extent[0], op.upscale)
    return min(needed, height), width, channels


# What was reckoned once is not reckoned again, in this network or in the next one with an operation of the same form.
REMEMBERED = 1 << 16
_steps: dict[tuple[Hashable, ...], Step] = {}
_performances: dict[tuple[Hashable, ...], Performance] = {}


def _remember(table: dict[tuple[Hashable, ...], Any], key: tuple[Hashable, ...], value: Any) -> None:
    if len(table) >= REMEMBERED:
        table.clear()
    table[key] = value


class Costs:
    """Steps and estimates of operations on one system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.configuration = system.configuration

    def step(self, op: NpuOp, rows: int) -> Step:
        """An operation in stripes of `rows` rows, nothing staged."""
        rows = op.shape[0] if op.chained else min(rows, op.shape[0])
        known = _steps.get((self.system, op.form, rows))
        if known is None:
            known = self._step(op, rows)
            _remember(_steps, (self.system, op.form, rows), known)
        return known if known.op is op else known.changed(op=op)

    def _step(self, op: NpuOp, rows: int) -> Step:
        shape = (rows, op.shape[1], op.shape[2])
        area = stripe_input(op, rows)
        block = self.block(op, shape, area)
        weights = self.weights(op, block)
        whole = self.operands(op, op.shape, op.input_shapes[0])
        cycles = op_cycles(op, block, whole, self.configuration)
        step = Step(
            op=op,
            stripe=rows,
            block=block,
            weights=weights,
            access=measure_access(op, block, op.shape, op.input_shapes[0]),
            cycles=cycles,
            performance=_NOTHING,
            slack_cycles=cycles,
        )
        slices = (0, op.shape[2])
        return step.changed(performance=self.performance(step, slices, staged=False, slack=0, double=False))

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
        staged: bool,
        slack: int,
        double: bool,
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
        asked = (step.block, step.stripe, tuple(slices), staged, slack, double, input_on_chip)
        key = (self.system, step.op.form, *asked)
        known = _performances.get(key)
        if known is None:
            known = self._performance(step, slices, staged, slack, double, input_on_chip)
            _remember(_performances, key, known)
        return known

    def _performance(
        self, step: Step, slices: Sequence[int], staged: bool, slack: int, double: bool, input_on_chip: bool
    ) -> Performance:
        op, weights = step.op, step.weights
        repeats = max(1.0, op.shape[0] / step.stripe)
        area = stripe_input(op, step.stripe)
        memory = self.system.on_chip if input_on_chip else self.system.feature_maps
        ifm_bytes_read, weight_bytes, fetches = self._reads(step, slices, area, weights)
        visible = run = last = 0
        for position, (first, end) in enumerate(itertools.pairwise(slices)):
            place = (Place.FIRST if position == 0 else Place.MIDDLE) | (
                Place.LAST if position == len(slices) - 2 else Place.MIDDLE
            )
            shape = (step.stripe, op.shape[1], end - first)
            operands = self.operands(
                op, shape, area, inputs=(memory, *[self.system.feature_maps] * (len(op.inputs) - 1)), staged=staged
            )
            last = op_cycles(op, step.block, operands, self.configuration, place)
            if weights is not None and staged:
                size = weights.slice_bytes(first, end)
                moved = copy_cycles(self.system.off_chip, self.system.on_chip, size, self.configuration)
                visible += max(moved - slack, 0)
            run += last
            slack = last if double else 0
        weight_cycles = 0
        if weights is not None:
            source = self.system.on_chip if staged else self.system.off_chip
            weight_cycles = read_cycles(source, channel(weights), weight_bytes // fetches, self.configuration) * fetches
        ifm_cycles = read_cycles(memory, input_channel(op), ifm_bytes_read, self.configuration)
        return Performance(
            ifm_read_bytes=ifm_bytes_read,
            ifm_bytes=math.prod(area),
            run_cycles=int(repeats * run),
            full_cycles=int(repeats * run) + visible,
            last_slice_cycles=last,
            visible_cycles=visible,
            weight_read_cycles=int(repeats * weight_cycles),
            ifm_read_cycles=int(repeats * ifm_cycles),
        )

    def _reads(
        self, step: Step, slices: Sequence[int], area: Hwc, weights: EncodedWeights | None
    ) -> tuple[int, int, int]:
        """Input bytes, weight bytes and how many times weights are fetched, over all slices of a stripe."""
        ifm_bytes = weight_bytes = fetches = 0
        for first, end in itertools.pairwise(slices):
            shape = (step.stripe, step.op.shape[1], end - first)
            access = measure_access(step.op, step.block, shape, area)
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


def tensor_bytes(tensor: FeatureMap) -> int:
    """Where a tensor is allocated whole."""
    return round_up(tensor.bytes, 16)


_NOTHING = Performance(
    ifm_read_bytes=0,
    ifm_bytes=0,
    run_cycles=0,
    full_cycles=0,
    last_slice_cycles=0,
    visible_cycles=0,
    weight_read_cycles=0,
    ifm_read_cycles=0,
)
