"""What stands around a kernel in its minimal model: producers of its inputs, glances at its results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from bitwright.hw_constraints.kernels.kernel import Family, Kernel, Shape
from bitwright.hw_constraints.kernels.onnx_parts import ACTIVATION_ZERO, Parts
from bitwright.hw_constraints.kernels.rules import BLOCKED, PLAIN

_PRODUCER_CHANNELS = 3
_PRODUCER_FEATURES = 16
_GLANCE_CHANNELS = 16
_GLANCE_SIDE = 3  # larger than 1, where OpenVINO would move the stride to a pool in front
_NARROW = 16  # channels below which blocks are not worth it: a vector of float32 of 512 bits
_PICTURE = 4
# A convolution would swallow these.
_FUSIBLE = frozenset({Family.ELEMENTWISE, Family.ACTIVATION, Family.NORM})


class Surroundings:
    """Builds them around one kernel.

    Attributes:
        reads_codes: whether the kernel's inputs are codes.
        writes_codes: whether its results are.
        producer_is_watched: whether the first producer needs a second reader, so that the kernel stays a kernel.
    """

    def __init__(self, kernel: Kernel, runtime: str, parts: Parts) -> None:
        if runtime == "onnxruntime" and kernel.family in (Family.QUANTIZE, Family.DEQUANTIZE):
            kernel = replace(kernel, layout=PLAIN)  # one loop over all elements, whatever their order
        self._kernel, self._runtime, self._parts = kernel, runtime, parts
        self._sources: dict[Shape, str] = {}
        coded, family = kernel.format == "int8", kernel.family
        # OpenVINO generates code for an activation of codes with a zero point, as those of both signs have; behind a
        # convolution whose codes have none it is fused, and behind a pool it is another kernel.
        self._generated = runtime == "openvino" and coded and family is Family.ACTIVATION
        self._zero = ACTIVATION_ZERO if kernel.attribute("zero_point") or self._generated else 0
        self.reads_codes = coded and family is not Family.QUANTIZE
        self.writes_codes = "quantize" in kernel.epilogue or (
            coded and "dequantize" not in kernel.epilogue and family is not Family.DEQUANTIZE
        )
        strided = max(kernel.attribute("strides", (1,))) > 1 and family is Family.POINTWISE
        # OpenVINO moves the stride of a convolution of 1 x 1 into a producer that nobody else reads.
        self.producer_is_watched = not self._reads_plain(0) and (strided or (family in _FUSIBLE and not coded))

    def produce(self, at: int) -> str:
        """A fresh tensor of an input's shape in the kernel's layout, through codes where the kernel reads codes."""
        shape, parts = self._kernel.inputs[at], self._parts
        if self._kernel.attribute("transposed"):  # batch, heads, tokens, width; the key's last two the other way round
            batch, heads, *rest = shape
            tokens, width = rest[::-1] if at == 1 else rest
            shape = (batch, tokens, heads, width)
        if self._reads_plain(at):
            if self.reads_codes and self._kernel.family in _FUSIBLE and self._runtime == "openvino" and len(shape) > 1:
                return self._multiplied(shape)
            value = self._source(shape, shared=len(self._kernel.inputs) == 1 and bool(self._kernel.weight))
            return self.coded(value) if self.reads_codes else value
        sides, strides = shape[2:], [1, 1]
        if at and self._kernel.weight:
            # ONNX Runtime adds within a convolution what it knows to be of one size: made from one size by equal steps.
            sides, strides = self._kernel.inputs[0][2:], list(self._kernel.attribute("strides", (1, 1)))
            if [-(-side // stride) for side, stride in zip(sides, strides, strict=True)] != list(shape[2:]):
                sides, strides = shape[2:], [1, 1]
        source = self._source((shape[0], _PRODUCER_CHANNELS, *sides), shared=True)
        if self.reads_codes:
            source = self.coded(source)
        weight = parts.weight((shape[1], _PRODUCER_CHANNELS, 1, 1), coded=self.reads_codes)
        value = parts.node("Conv", [source, weight], kernel_shape=[1, 1], strides=strides)
        # An addition would become part of the convolution in front of it, not of the kernel: unless that has an
        # activation already, or there is a pool in between.
        if not self.reads_codes:
            return parts.node("Relu", [value]) if at else value
        value = self.coded(value)
        if at or (self._kernel.family in _FUSIBLE and not self._generated):
            value = self.coded(parts.node("MaxPool", [value], kernel_shape=[1, 1], strides=[1, 1]))
        return value

    def _multiplied(self, shape: Shape) -> str:
        """Codes that a product makes: OpenVINO would merge a QuantizeLinear of the input with the kernel."""
        source = self.coded(self._source((*shape[:-1], _PRODUCER_FEATURES), shared=True))
        weight = self._parts.weight((_PRODUCER_FEATURES, shape[-1]), coded=True, axis=1)
        return self.coded(self._parts.node("MatMul", [source, weight]))

    def coded(self, value: str, *, scale: float | None = None) -> str:
        """The value through codes as this kernel has them."""
        return self._parts.quantized(value, zero=self._zero, **({} if scale is None else {"scale": scale}))

    def glance(self, value: str, shape: Shape, *, coded: bool, variant: int = 0) -> None:
        """A result that depends on the tensor and reads next to nothing of it.

        Args:
            value: the tensor.
            shape: its dimensions.
            coded: whether it is in codes.
            variant: different ones of the same tensor differ, so that runtimes do not merge them.
        """
        parts = self._parts
        if len(shape) == _PICTURE and self._kernel.layout != PLAIN:
            padded = self._kernel.layout == BLOCKED and shape[1] % _NARROW
            # Behind some operators ONNX Runtime would put codes into the plain order for a pool, or make them real.
            coded_conv = coded and self._runtime == "onnxruntime"
            small = (self._convolved if padded or coded_conv else self._pooled)(value, shape, variant, coded=coded)
            parts.result(self.coded(small) if coded else self._same_count(small))
        else:
            self._slice(value, shape, coded=coded, variant=variant)

    def reorder(self, *, forced: bool) -> None:
        """A conversion between layouts: forced by a reader that insists on the other layout, or avoided."""
        parts, kernel = self._parts, self._kernel
        shape = kernel.inputs[0]
        if self._runtime == "openvino":
            (self._to_plain if kernel.layout == PLAIN else self._from_plain)(shape, forced=forced)
            return
        if kernel.layout == PLAIN:
            value = self.produce(0)
            if forced:
                self._slice(value, shape, coded=self.reads_codes)
            else:
                padded = kernel.op.startswith(BLOCKED) and shape[1] % _NARROW
                self._pool_result((self._convolved if padded else self._pooled)(value, shape, 0))
            return
        value = parts.input(shape)
        value = self.coded(value) if self.reads_codes else value
        sides = [min(_GLANCE_SIDE, side) for side in shape[2:]]
        if not forced:
            value = self._slice_of(value, [0] * _PICTURE, [1, shape[1], *sides])
        weight = parts.weight((_GLANCE_CHANNELS, shape[1], *sides), coded=self.reads_codes)
        seen = parts.node("Conv", [value, weight], kernel_shape=sides, strides=list(shape[2:]))
        parts.result(self.coded(seen) if self.reads_codes else seen)

    def _to_plain(self, shape: Shape, *, forced: bool) -> None:
        """OpenVINO slices in any layout; only a view of other dimensions makes it put a tensor in order.

        Both models look at one position and at a view: of the tensor, or of that position, which is in order already.
        """
        parts, value = self._parts, self.produce(0)
        small = self._pooled(value, shape, 0)
        seen, count = (value, math.prod(shape)) if forced else (small, shape[0] * shape[1])
        flat = parts.node("Reshape", [seen, parts.constant(np.asarray([1, count], np.int64))])
        parts.result(self.coded(small) if self.reads_codes else small)
        parts.result(self._slice_of(flat, [0, 0], [1, 1]))

    def _from_plain(self, shape: Shape, *, forced: bool) -> None:
        """A convolution of few positions reads the picture, or another one that is no larger than its window.

        Each picture is also looked at as it is, so that both models do the same with both, but for this.
        """
        parts = self._parts
        sides = [min(_GLANCE_SIDE, side) for side in shape[2:]]
        weight = parts.weight((_GLANCE_CHANNELS, shape[1], *sides), coded=self.reads_codes)
        large, little = (parts.input((*shape[:2], *each)) for each in (shape[2:], sides))
        if self.reads_codes:
            large, little = self.coded(large), self.coded(little)
        for value in (large, little):
            parts.result(self._slice_of(value, [0] * _PICTURE, [1] * _PICTURE))
        strides = list(shape[2:])
        seen = parts.node("Conv", [large if forced else little, weight], kernel_shape=sides, strides=strides)
        parts.result(self.coded(seen) if self.reads_codes else seen)

    def _pool_result(self, small: str) -> None:
        if self.reads_codes and self._runtime == "onnxruntime":
            self._parts.result(self._parts.codes[self.coded(small)], TensorProto.UINT8)
        else:
            self._parts.result(self.coded(small) if self.reads_codes else small)

    def dequantize(self, *, forced: bool) -> None:
        """A reader that knows no codes forces the real values."""
        parts, shape = self._parts, self._kernel.inputs[0]
        value = self.produce(0)
        if self._runtime == "onnxruntime" and self._kernel.layout == PLAIN:
            self._slice(value, shape, coded=not forced)
            return
        if self._runtime == "onnxruntime":
            small = self._pooled(value, shape, 0)
            parts.result(small if forced else self.coded(small))
            return
        if self._kernel.layout == PLAIN:
            shape = (1, 1, math.prod(shape[:-1]), shape[-1])
            value = self.coded(parts.node("Reshape", [value, parts.constant(np.asarray(shape, np.int64))]))
        # Pools and slices are moved in front of a DequantizeLinear; a convolution with real weights is not.
        small = self._pooled(value, shape, 0)
        weight = parts.weight((_GLANCE_CHANNELS, shape[1], 1, 1), coded=False)
        strides = [max(1, side) for side in shape[2:]]
        seen = parts.node("Conv", [value if forced else small, weight], kernel_shape=[1, 1], strides=strides)
        parts.result(self.coded(small))
        parts.result(seen)

    def _reads_plain(self, at: int) -> bool:
        """Whether an input comes as the network's own do. Convolutions of few channels read no blocks."""
        kernel, shape = self._kernel, self._kernel.inputs[at]
        layout = kernel.op.partition("_to_")[0] if kernel.family is Family.REORDER else kernel.layout
        reads_blocks = kernel.family is Family.DEPTHWISE or not kernel.weight or shape[1] >= _NARROW
        narrow = layout == BLOCKED and at == 0 and not reads_blocks
        return len(shape) != _PICTURE or layout == PLAIN or narrow

    def _source(self, shape: Shape, *, shared: bool) -> str:
        if shared and shape in self._sources:
            return self._sources[shape]
        name = self._parts.input(shape)
        return self._sources.setdefault(shape, name) if shared else name

    def _convolved(self, value: str, shape: Shape, variant: int, *, coded: bool = False) -> str:
        """For channels that are no multiple of a block: there a pool would have to put the tensor in order first."""
        strides = [max(1, shape[2]) + variant, max(1, shape[3])]
        weight = self._parts.weight((_GLANCE_CHANNELS, shape[1], 1, 1), coded=coded)
        return self._parts.node("Conv", [value, weight], kernel_shape=[1, 1], strides=strides)

    def _pooled(self, value: str, shape: Shape, variant: int, *, coded: bool = False) -> str:
        strides = [max(1, shape[2]) + variant, max(1, shape[3])]
        return self._parts.node("MaxPool", [value], kernel_shape=[1, 1], strides=strides)

    def _slice(self, value: str, shape: Shape, *, coded: bool, variant: int = 0) -> None:
        longest = max(range(len(shape)), key=lambda axis: shape[axis], default=0)
        starts = [variant % shape[axis] if axis == longest else 0 for axis in range(len(shape))]
        ends = [start + 1 for start in starts]
        if self._runtime == "onnxruntime":
            # It moves transposes and conversions behind a slice, where they cost nothing; behind this it does not.
            at = self._parts.constant(np.asarray([starts], np.int64))
            source = self._parts.codes[value] if coded else value
            kind = TensorProto.UINT8 if coded else TensorProto.FLOAT
            self._parts.result(self._parts.node("GatherND", [source, at]), kind)
        else:  # it only keeps codes as codes up to a DequantizeLinear
            small = self._slice_of(value, starts, ends)
            self._parts.result(small if coded else self._same_count(small))

    def _slice_of(self, value: str, starts: list[int], ends: list[int]) -> str:
        parts = self._parts
        bounds = [np.asarray(numbers, np.int64) for numbers in (starts, ends, range(len(starts)))]
        return parts.node("Slice", [value, *map(parts.constant, bounds)])

    def _same_count(self, small: str) -> str:
        """A node where the other model has one that turns the few codes back into real values."""
        slices_codes = self._runtime == "onnxruntime" and self._kernel.layout == PLAIN
        if self.reads_codes == self.writes_codes or slices_codes:
            return small
        return self._parts.node("Neg", [small])
