"""The work of one fused operation as a loop nest: what tiling, allocation and every cost model reckon with.

A convolution, a matrix product, a pool and an elementwise operator are one nest with some loops of length 1; only the
kind says whether weights are read, and whether output channels share their inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WorkKind(StrEnum):
    """Which loops meet in one result."""

    CONVOLUTION = "convolution"  # every output channel of a group sums over all its input channels
    DEPTHWISE = "depthwise"  # each output channel has one input channel of its own
    MATRIX_PRODUCT = "matrix_product"  # a convolution with a 1x1 kernel whose second operand may be an activation
    POOL = "pool"  # each channel by itself, no weights
    REDUCTION = "reduction"  # one result out of many inputs, no weights
    ELEMENTWISE = "elementwise"  # one result for each position
    MOVE = "move"  # bytes change place, nothing is computed


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis of a window that slides over the input.

    Attributes:
        output: how many results along it.
        input: how many input positions along it.
        kernel: taps along it.
        stride: input positions from one result to the next.
        dilation: input positions from one tap to the next.
        padding: positions of padding before the first input position.
    """

    output: int
    input: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        for name in ("output", "input", "kernel", "stride", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"axis: {name} = {getattr(self, name)}; must be 1 or more")
        if self.padding < 0:
            raise ValueError(f"axis: padding = {self.padding}; must be 0 or more")

    def span(self, results: int) -> int:
        """Input positions, padding included, that `results` neighbouring results read."""
        return (results - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def window(self, first: int, results: int) -> tuple[int, int]:
        """The half-open range of real input positions that results `first … first + results - 1` read."""
        start = first * self.stride - self.padding
        return max(start, 0), min(max(start + self.span(results), 0), self.input)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A loop nest: batch × groups × out_channels × out_y × out_x results, each over in_channels × kernel_y × kernel_x.

    Channels are counted per group; a depthwise layer of C channels is C groups of 1 × 1 (or 1 × m) channels.

    Attributes:
        kind: which loops meet.
        batch: independent images; for matrix products the product of all leading dimensions that weights do not share.
        groups: independent groups of channels.
        out_channels: results per group and position.
        in_channels: inputs per group and position.
        y: rows.
        x: columns; the rows of a matrix product lie here, so that `out_y = 1` there.
        operands: how many activations of the input's shape are read (2 for an addition).
        input_bits: of one element of an activation operand.
        weight_bits: of one weight; 0 without weights.
        output_bits: of one result.
        has_bias: whether each output channel brings a bias and a scale.
        weights_are_activations: the second operand of a matrix product is computed by the network itself.
    """

    kind: WorkKind
    batch: int = 1
    groups: int = 1
    out_channels: int
    in_channels: int
    y: Axis
    x: Axis
    operands: int = 1
    input_bits: int = 8
    weight_bits: int = 8
    output_bits: int = 8
    has_bias: bool = False
    weights_are_activations: bool = False

    @property
    def taps(self) -> int:
        """Products (or inputs) that one result takes."""
        return self.in_channels * self.y.kernel * self.x.kernel

    @property
    def results(self) -> int:
        """Elements of the output."""
        return self.batch * self.groups * self.out_channels * self.y.output * self.x.output

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 where nothing is multiplied with weights or another activation matrix."""
        multiplies = self.kind in (WorkKind.CONVOLUTION, WorkKind.DEPTHWISE, WorkKind.MATRIX_PRODUCT)
        return self.results * self.taps if multiplies else 0

    @property
    def input_bytes(self) -> int:
        """All activation operands, each element once."""
        elements = self.batch * self.groups * self.in_channels * self.y.input * self.x.input
        return self.operands * -(-elements * self.input_bits // 8)

    @property
    def weight_elements(self) -> int:
        """Weights, each once; 0 without."""
        if not self.weight_bits:
            return 0
        batches = self.batch if self.weights_are_activations else 1
        return batches * self.groups * self.out_channels * self.taps

    @property
    def weight_bytes(self) -> int:
        """Weights as they are, neither padded nor compressed."""
        return -(-self.weight_elements * self.weight_bits // 8)

    @property
    def output_bytes(self) -> int:
        """The results."""
        return -(-self.results * self.output_bits // 8)
