"""One operation in a schedule: its block, its stripe, its weights, and what running it so is estimated to take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, required_input
from bitwright.hw_constraints.cost.ethos_u.figures import Hwc, ceil_div
from bitwright.hw_constraints.cost.ethos_u.operations import NpuOp
from bitwright.hw_constraints.cost.ethos_u.traffic import Access
from bitwright.hw_constraints.cost.ethos_u.weights import EncodedWeights


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
