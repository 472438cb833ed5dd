"""What the accelerator executes: operations on feature maps, with their weights, in the order of execution."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from bitwright.hw_constraints.cost.ethos_u.figures import BRICK, Hwc, round_up
from bitwright.hw_constraints.cost.ethos_u.weight_codes import WeightHistogram


class OpKind(StrEnum):
    """Which unit works, and how it goes through its input."""

    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise"
    POOLING = "pooling"
    ELEMENTWISE = "elementwise"
    RESIZE = "resize"


@dataclass(eq=False, kw_only=True)
class FeatureMap:
    """A tensor that the accelerator reads or writes.

    Attributes:
        name: of the tensor.
        shape: rows, columns, channels.
        is_input: handed in by the application.
        is_output: handed back to it.
        linear: channels last, without bricks; what the application, reshapes and odd channel offsets need.
        producers: operations that write it (several write parts of a concatenation).
        consumers: operations that read it.
    """

    name: str
    shape: Hwc
    is_input: bool = False
    is_output: bool = False
    linear: bool = False
    producers: list[NpuOp] = field(default_factory=list)
    consumers: list[NpuOp] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """As it is stored: int8, bricks filled up, 16-byte aligned."""
        rows, columns, channels = self.shape
        return round_up(rows * columns * (channels if self.linear else round_up(channels, BRICK)), 16)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Taps, stride and dilation, each (rows, columns)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def extent(self) -> tuple[int, int]:
        """Input positions that one output position spans."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    @property
    def taps(self) -> int:
        """Inputs per output position and channel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def is_unit(self) -> bool:
        """Whether each output position sees one input position alone."""
        return self.taps == 1


UNIT = Window()


@dataclass(eq=False, kw_only=True)
class NpuOp:
    """One operation of the accelerator.

    Attributes:
        name: the result's tensor.
        kind: which unit works.
        type: the operator's own name (`add`, `mul`, `max_pool2d`, …).
        inputs: one or two feature maps.
        output: the feature map that it writes.
        shape: of its results; a part of `output` where it writes into a concatenation.
        input_shapes: of each operand as the operation reads it.
        window: taps over the input.
        weights: the codes of its weights; None without.
        upscale: by how much the input is enlarged while it is read.
        activation: what is fused behind it: `clip`, `table` or none.
        is_table: whether it is nothing but a lookup table.
        chained: elementwise operations that work on its results before they are written (U85).
        macs: multiply-accumulates.
    """

    name: str
    kind: OpKind
    type: str
    inputs: list[FeatureMap]
    output: FeatureMap
    shape: Hwc
    input_shapes: list[Hwc]
    window: Window = UNIT
    weights: WeightHistogram | None = None
    upscale: int = 1
    activation: str = ""
    is_table: bool = False
    chained: list[NpuOp] = field(default_factory=list)
    macs: int = 0
    index: int = 0

    @cached_property
    def form(self) -> tuple[Hashable, ...]:
        """All that its cost hangs on, but for where its operands lie; asked for when formats and chains are settled."""
        beside = self.read[len(self.inputs) :]
        return (
            (self.kind, self.type, self.shape, self.window, self.upscale, self.weights),
            (self.activation, self.is_table, tuple((part.type, part.activation) for part in self.chained)),
            tuple((shape, each.linear) for shape, each in zip(self.input_shapes, self.inputs, strict=True)),
            (self.output.linear, self.written.linear, self.written.shape),
            tuple((each.shape, each.linear) for each in beside),
        )

    @property
    def last(self) -> NpuOp:
        """The operation whose results are written."""
        return self.chained[-1] if self.chained else self

    @property
    def written(self) -> FeatureMap:
        """The feature map that leaves the unit."""
        return self.last.output

    @property
    def read(self) -> list[FeatureMap]:
        """Every feature map that comes from memory."""
        inner = {id(op.output) for op in (self, *self.chained[:-1])}
        chained = [tensor for op in self.chained for tensor in op.inputs if id(tensor) not in inner]
        return [*self.inputs, *chained]

    @property
    def uses_table(self) -> bool:
        """Whether an activation comes from a lookup table."""
        return any(op.is_table or op.activation == "table" for op in (self, *self.chained))


def connect(operations: Sequence[NpuOp]) -> None:
    """Numbers the operations and fills in who reads and writes each feature map."""
    for position, op in enumerate(operations):
        op.index = position
        for tensor in (op.written, *op.read):
            tensor.producers.clear()
            tensor.consumers.clear()
    for op in operations:
        op.written.producers.append(op)
        for tensor in dict.fromkeys(op.read):
            tensor.consumers.append(op)
