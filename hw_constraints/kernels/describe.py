"""ONNX operators in the vocabulary of kernels: family, weight, attributes that matter to time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, Family, Shape, Value

_FAMILIES = {
    Family.CONV_TRANSPOSE: {"ConvTranspose"},
    Family.ELEMENTWISE: {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Where", "Sum", "PRelu"},
    Family.ACTIVATION: {
        *("Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu"),
        *("Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Softplus", "Mish", "Reciprocal", "Floor", "Ceil", "Round"),
        *("Sin", "Cos", "Sign", "ThresholdedRelu", "Softsign"),
    },
    Family.POOL: {"MaxPool", "AveragePool", "LpPool"},
    Family.GLOBAL_POOL: {"GlobalAveragePool", "GlobalMaxPool"},
    Family.CONCAT: {"Concat"},
    Family.SOFTMAX: {"Softmax", "LogSoftmax"},
    Family.NORM: {
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"),
        *("RMSNormalization", "LpNormalization", "MeanVarianceNormalization"),
    },
    Family.RESIZE: {"Resize", "Upsample"},
    Family.COPY: {
        *("Transpose", "Slice", "Split", "Gather", "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
        *("GatherElements", "GatherND"),
    },
    Family.VIEW: {"Reshape", "Flatten", "Squeeze", "Unsqueeze"},
}
_FAMILY_OF = {op: family for family, ops in _FAMILIES.items() for op in ops}
# Settings that change values, not the work.
_NO_WORK = frozenset({"epsilon", "momentum", "alpha", "beta", "gamma", "auto_pad", "training_mode", "stash_type", "to"})
_LARGEST_CONSTANT = 64  # elements of a shape, of axes, of pads
_CONV_DEFAULTS = {"group": 1, "dilations": 1, "strides": 1, "pads": 0}
_POOL_DEFAULTS: dict[str, Value] = {"kernel_shape": (), "strides": (1, 1), "pads": (0, 0, 0, 0), "ceil_mode": 0}
_SOME_NUMBER = 0.5  # neither of those that leave a tensor as it is
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceSum"})


def family_of(graph: CodedGraph, call: Call) -> Family:
    """The kind of kernel that an operator gives when it stands alone."""
    if call.op == "Conv":
        return _conv_family(graph, call)
    if call.op in ("MatMul", "Gemm"):
        return Family.MATMUL if len(call.live) > 1 and call.operands[1] in call.live else Family.LINEAR
    if call.op in _REDUCTIONS and _reduces_picture(graph, call):
        return Family.GLOBAL_POOL
    return _FAMILY_OF.get(call.op, Family.OTHER)


def _conv_family(graph: CodedGraph, call: Call) -> Family:
    weight, group = weight_shape(graph, call), int(_attribute(call, "group", 1))
    if group > 1:
        return Family.DEPTHWISE if weight[1] == 1 and weight[0] == group else Family.GROUPED
    return Family.POINTWISE if all(side == 1 for side in weight[2:]) else Family.CONV


def _reduces_picture(graph: CodedGraph, call: Call) -> bool:
    """Whether a reduction is over all but batch and channel of a picture."""
    rank = len(graph.shape(call.live[0].value)) if call.live else 0
    named = call.operands[1] if len(call.operands) > 1 else None
    axes = graph.graph.constant(named.value) if named else _attribute(call, "axes", None)
    return axes is not None and rank > 2 and sorted(int(axis) % rank for axis in axes) == list(range(2, rank))


def bounds_of(graph: CodedGraph, call: Call) -> tuple[float, float]:
    """What relu or clip cuts off below and above."""
    if call.op == "Relu":
        return 0.0, math.inf
    found = [-math.inf, math.inf]
    for position, operand in enumerate(call.operands[1:3]):
        value = graph.graph.constant(operand.value) if operand is not None else None
        found[position] = float(value.flat[0]) if value is not None else found[position]
    return found[0], found[1]


def weight_shape(graph: CodedGraph, call: Call) -> Shape:
    """The constant operand that a kernel multiplies or adds; empty without one."""
    family = Family.CONV if call.op == "Conv" else _FAMILY_OF.get(call.op, Family.LINEAR)
    stored = [operand for operand in call.operands if operand is not None and not operand.live]
    if call.op in ("Conv", "ConvTranspose", "MatMul", "Gemm") and stored:
        second = call.operands[1]
        if second is None or second.live:
            return graph.shape(stored[0].value) if call.op == "MatMul" else ()
        shape = graph.shape(second.value)
        transposed = call.op == "Gemm" and _attribute(call, "transB", 0)
        return shape[::-1] if transposed else shape
    if family is Family.ELEMENTWISE and stored:
        shape = graph.shape(stored[0].value)
        return shape if math.prod(shape) > 1 else ()
    return ()


def attributes_of(graph: CodedGraph, call: Call, family: Family) -> tuple[tuple[str, Value], ...]:
    """Attributes with their defaults written out, and small constant operands, sorted by name."""
    found: dict[str, Value] = {}
    for attribute in call.node.attribute:
        value = _value(attribute)
        if value is not None and attribute.name not in _NO_WORK:
            found[attribute.name] = value
    if family in CONVOLUTIONS:
        return tuple(sorted(_conv_attributes(graph, call, found).items()))
    if family is Family.POOL:
        return tuple(sorted((name, found.get(name, default)) for name, default in _POOL_DEFAULTS.items()))
    if family is Family.LINEAR:
        return ()  # transposed weights are packed when the model is loaded
    if family is Family.ELEMENTWISE:
        found |= _scalars(graph, call)
    elif family not in (Family.NORM, Family.CONV_TRANSPOSE):
        found |= _small_constants(graph, call)
    return tuple(sorted(found.items()))


def _conv_attributes(graph: CodedGraph, call: Call, found: dict[str, Value]) -> dict[str, Value]:
    weight = weight_shape(graph, call)
    sides = len(weight) - 2
    spread = {
        name: value if name == "group" else (value,) * (2 * sides if name == "pads" else sides)
        for name, value in _CONV_DEFAULTS.items()
    }
    auto = {attribute.name: attribute for attribute in call.node.attribute}.get("auto_pad")
    merged: dict[str, Value] = {**spread, **found, "kernel_shape": weight[2:]}
    if auto is not None and auto.s in (b"SAME_UPPER", b"SAME_LOWER"):
        merged["pads"] = _same_pads(graph, call, merged, upper=auto.s == b"SAME_UPPER")
    return merged


def _same_pads(graph: CodedGraph, call: Call, found: dict[str, Value], *, upper: bool) -> tuple[int, ...]:
    """Pads for which output = ceil(input / stride): onnx/docs/Operators.md, Conv, auto_pad."""
    data, result = graph.shape(call.live[0].value)[2:], graph.shape(call.outputs[0])[2:]
    strides, dilations, kernel = (np.asarray(found[name]) for name in ("strides", "dilations", "kernel_shape"))
    total = np.maximum(0, (np.asarray(result) - 1) * strides + (kernel - 1) * dilations + 1 - np.asarray(data))
    small = total // 2
    first, last = (small, total - small) if upper else (total - small, small)
    return tuple(int(pad) for pad in (*first, *last))


def _scalars(graph: CodedGraph, call: Call) -> dict[str, Value]:
    """Single numbers that stand as operands; their values only matter to a power."""
    numbers = _small_constants(graph, call)
    single = {name: value for name, value in numbers.items() if not isinstance(value, tuple) or len(value) == 1}
    return {name: value if call.op == "Pow" else _SOME_NUMBER for name, value in single.items()}


def _small_constants(graph: CodedGraph, call: Call) -> dict[str, Value]:
    constants: dict[str, Value] = {}
    for position, operand in enumerate(call.operands):
        stored = graph.graph.constants.get(operand.value) if operand is not None and not operand.live else None
        if operand is None or stored is None or not 0 < math.prod(stored.dims) <= _LARGEST_CONSTANT:
            continue  # of weights only the shape is known where a file was planned, not written
        array = graph.graph.constant(operand.value)
        if array is not None and array.dtype.kind in "iuf":
            flat = tuple(array.flatten().tolist())
            constants[f"const:{position}"] = flat if array.ndim else flat[0]
    return constants


def _attribute(call: Call, name: str, default: Any) -> Any:
    return next((_value(attribute) for attribute in call.node.attribute if attribute.name == name), default)


def _value(attribute: AttributeProto) -> Value | None:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated"):
        items = [item.decode() if isinstance(item, bytes) else item for item in value]
        return tuple(items) if all(isinstance(item, int | float | str) for item in items) else None
    return None
