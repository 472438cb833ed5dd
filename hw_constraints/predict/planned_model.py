"""The Q/DQ model that a plan would lead to, before anything is calibrated: structure and formats right, values made up.

What a runtime fuses, and how long it takes, follows from where codes are and in which format. Of the scales it matters
only whether two are equal, and of zero points whether they are 0: tensors of one group of the plan get the same scale,
others different ones; codes of tensors that cannot be negative have the zero point 0, and those of tensors with an
upper bound do not reach beyond 6, as calibration would have it, since runtimes drop an activation that codes imply;
a bias has the scale of its layer's input times that of its weight.
So a float network and a target's plan are enough to say which int8 kernels would run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder, value_name
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import Granularity, QParamsSpec

OPSET = 20
_SMALL = 64  # elements: axes, pads and target shapes are read as values; weights only as shapes
_MIDDLE = 100  # a zero point of codes for values of both signs
_STEPS = 2**20  # scales 1 + n / 2^20 differ in float32
_BOUNDED_SCALE = 5 / 255  # of codes 0 … 255 for values that ReLU6 or another clip bounds
# Operators whose results are never negative, and those that move values or choose among them.
_POSITIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "square", "exp", "abs"})
_KEEPING = frozenset(
    {
        *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d"),
        *("mean", "cat", "concat", "view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "expand", "upsample_nearest2d"),
        *("upsample_bilinear2d", "pixel_shuffle", "channel_shuffle", "unflatten", "_unsafe_view", "index_select"),
    }
)
_CODES = {(8, False): TensorProto.UINT8, (8, True): TensorProto.INT8}


def float_model(graph: Graph) -> onnx.ModelProto:
    """The float network as ONNX with its weights' shapes alone.

    Raises:
        InputError: an operator has no translation, or a shape is not static.
    """
    return _FloatBuilder(graph, opset=OPSET).build(_translators())


def planned_model(graph: Graph, plan: QuantPlan) -> onnx.ModelProto:
    """The network as `quant.export.onnx_qdq` would write it, with its codes' shapes alone and every scale 1.

    Raises:
        InputError: as for the float network; or a format that is not an integer of up to eight bits, scales of blocks,
            or scales that follow the data.
    """
    for kind, specs in (("activation", plan.activations), ("weight", plan.weights)):
        for ref, spec in specs.items():
            _check_scales(f"{kind} {value_name(ref)!r}", spec)
    return _PlannedBuilder(graph, plan, opset=OPSET).build(_translators())


def _translators() -> Any:
    from bitwright.quant.export.onnx_translators import TRANSLATORS

    return TRANSLATORS


class _FloatBuilder(OnnxBuilder):
    """Keeps what shapes follow from, and of larger constants the shape."""

    def read(self, ref: TensorRef, reader: Node) -> str:
        name = value_name(ref)
        if self.graph.is_constant(ref) and name not in self.initializers:
            info = self.graph.tensors[ref]
            if info.elements <= _SMALL and self.graph.load is not None:
                return super().read(ref, reader)
            self.declare(name, ELEMENT_TYPES[info.dtype], self.shape(ref))
        return name

    def declare(self, name: str, element_type: int, shape: tuple[int, ...]) -> None:
        """A constant: without values, or with some (neither 0 nor 1) where it is small enough to be read."""
        count = math.prod(shape)
        tensor = TensorProto(name=name, data_type=element_type, dims=shape)
        if count <= _SMALL:
            dtype = helper.tensor_dtype_to_np_dtype(element_type)
            tensor.raw_data = (2 + np.arange(count) % 7).astype(dtype).tobytes()
        self.initializers[name] = tensor


class _PlannedBuilder(_FloatBuilder):
    def __init__(self, graph: Graph, plan: QuantPlan, *, opset: int) -> None:
        super().__init__(graph, opset=opset)
        self.plan = plan
        self.specs: Mapping[TensorRef, QParamsSpec] = {**plan.activations, **plan.weights}
        self._group = {ref: number for number, group in enumerate(plan.groups) for ref in group}
        self._unsigned = _never_negative(graph)
        self._scales: dict[TensorRef, float] = {}
        self._bounded = {ref for node in graph.nodes if _upper_bound(node) is not None for ref in node.outputs}
        self._bounded_groups = {number for ref, number in self._group.items() if ref in self._bounded}
        self._signed_groups = {number for ref, number in self._group.items() if ref not in self._unsigned}

    def read(self, ref: TensorRef, reader: Node) -> str:
        bias = self.plan.biases.get(reader.name)
        if bias is not None and bias.bias == ref:
            per_channel = self.specs[bias.weight].granularity is Granularity.PER_CHANNEL
            count = self.graph.tensors[ref].elements if per_channel else None
            name, scale = f"{value_name(ref)}/{reader.name}", self._scales[bias.input]  # times the weight's, which is 1
            return self._constant(name, ref, TensorProto.INT32, np.int32, count, 0, scale=scale)
        spec = self.specs.get(ref)
        constant = self.graph.is_constant(ref)
        if spec is None or (constant and reader.name not in self.plan.quantized):
            return super().read(ref, reader)
        if not constant:
            return f"{value_name(ref)}/dq"
        axis = self._channel_axis(ref)
        count = self.shape(ref)[axis] if spec.granularity is Granularity.PER_CHANNEL else None
        return self._constant(value_name(ref), ref, _code_type(spec), _code_dtype(spec), count, axis)

    def finish_input(self, ref: TensorRef) -> None:
        self._quantize(ref)

    def finish_node(self, node: Node) -> None:
        for ref in node.outputs:
            self._quantize(ref)

    def output_name(self, ref: TensorRef) -> str:
        return f"{value_name(ref)}/dq" if ref in self.specs else value_name(ref)

    def _quantize(self, ref: TensorRef) -> None:
        spec = self.specs.get(ref)
        if spec is None or (not self.graph.consumers[ref] and ref not in self.graph.outputs):
            return
        name = value_name(ref)
        scale, zero_point = self._activation_qparams(name, ref, spec)
        clipped = name
        if isinstance(spec.format, IntFormat) and (spec.format.bits < 8 or spec.narrow_range):
            bounds = [self.constant(name, np.float32(-1)), self.constant(name, np.float32(1))]
            clipped = self.emit("Clip", [name, *bounds], f"{name}/clip")
        self.emit("QuantizeLinear", [clipped, scale, zero_point], f"{name}/q")
        self.emit("DequantizeLinear", [f"{name}/q", scale, zero_point], f"{name}/dq")

    def _constant(
        self,
        name: str,
        ref: TensorRef,
        element: int,
        dtype: Any,
        count: int | None,
        axis: int,
        *,
        scale: float = 1.0,
    ) -> str:
        if f"{name}/codes" not in self.initializers:
            self.declare(f"{name}/codes", element, self.shape(ref))
            scales, zero_points = self._qparams(name, dtype, count, scale)
            by_channel = axis if count is not None else None
            self.emit("DequantizeLinear", [f"{name}/codes", scales, zero_points], f"{name}/dq", axis=by_channel)
        return f"{name}/dq"

    def _channel_axis(self, ref: TensorRef) -> int:
        from bitwright.quant.operand_axes import weight_axis

        return weight_axis(self.graph, ref)

    def _activation_qparams(self, name: str, ref: TensorRef, spec: QParamsSpec) -> tuple[str, str]:
        group = self._group.get(ref)
        signed = ref not in self._unsigned if group is None else group in self._signed_groups
        number = len(self.initializers) if group is None else -1 - group
        bounded = ref in self._bounded if group is None else group in self._bounded_groups
        scale = self._scales[ref] = (_BOUNDED_SCALE if bounded else 1.0) * (1 + number / _STEPS)
        zero = _MIDDLE if signed and not spec.symmetric else 0
        self.add_initializer(f"{name}/scale", np.asarray(scale, np.float32))
        self.add_initializer(f"{name}/zero_point", np.asarray(zero, _code_dtype(spec)))
        return f"{name}/scale", f"{name}/zero_point"

    def _qparams(self, name: str, dtype: Any, count: int | None, scale: float) -> tuple[str, str]:
        shape = () if count is None else (count,)
        self.add_initializer(f"{name}/scale", np.full(shape, scale, np.float32))
        self.add_initializer(f"{name}/zero_point", np.zeros(shape, dtype))
        return f"{name}/scale", f"{name}/zero_point"


def _check_scales(what: str, spec: QParamsSpec) -> None:
    """Refuses what would become other operators than QuantizeLinear and DequantizeLinear with one scale a channel."""
    found = "granularity = 'per_block'" if spec.granularity is Granularity.PER_BLOCK else "dynamic = true"
    if spec.dynamic or spec.granularity is Granularity.PER_BLOCK:
        raise InputError(
            f"{what}: {found}; kernels are known for static scales per_tensor or per_channel; measure the exported file"
        )


def _code_type(spec: QParamsSpec) -> int:
    if not isinstance(spec.format, IntFormat) or spec.format.bits > 8:
        raise InputError(
            f"format {spec.format.name!r}: kernels are known for integers of up to 8 bits; predict the exported file"
        )
    return int(_CODES[8, spec.format.signed])


def _code_dtype(spec: QParamsSpec) -> Any:
    return np.uint8 if _code_type(spec) == TensorProto.UINT8 else np.int8


def _never_negative(graph: Graph) -> frozenset[TensorRef]:
    """Tensors whose range begins at 0."""
    found: set[TensorRef] = set()
    for node in graph.nodes:
        bound = node.attributes.get("min_val", node.attributes.get("min"))
        clipped = node.op in ("hardtanh", "clamp", "clamp_min") and bound is not None and bound >= 0
        moved = (node.op in _KEEPING or node.op in ("add", "mul")) and all(
            ref in found for ref in node.tensors if graph.tensors[ref].is_floating
        )
        if node.op in _POSITIVE or clipped or (moved and node.tensors):
            found.update(node.outputs)
    return frozenset(found)


def _upper_bound(node: Node) -> float | None:
    """The largest value that an activation lets through."""
    if node.op == "relu6":
        return 6.0
    if node.op not in ("hardtanh", "clamp", "clamp_max"):
        return None
    bound: float | None = node.attributes.get("max_val", node.attributes.get("max"))
    return bound
