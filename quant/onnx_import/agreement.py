"""What a file says about a node's operands has to fit together; where it cannot, the file is refused by name.

Only what is sure: a size that the file leaves open fits everything. Rules by ONNX's operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.reading import STANDARD
from bitwright.quant.onnx_import.structure import spell
from bitwright.quant.onnx_import.values import UNKNOWN_RANK, Shape, Values

_CODING = ("QuantizeLinear", "DequantizeLinear")
Shapes = Sequence[Shape | None]  # of the operands; None for one that is missing or of unknown rank


def check_inputs(graph: GraphProto, values: Values, label: str) -> None:
    """Refuses a network that is fed nothing.

    Raises:
        InputError: an input has a dimension of size 0.
    """
    stored = {tensor.name for tensor in graph.initializer}
    for item in graph.input:
        shape = values.types[item.name].shape
        if item.name not in stored and 0 in shape:
            spelled = ", ".join("?" if size is None else str(size) for size in shape)
            raise InputError(
                f"{label}: input {item.name!r} has the shape [{spelled}], which holds no element; "
                "export it with the sizes that it is to run at"
            )


def check_operands(values: Values, node: NodeProto, inputs: Sequence[str], label: str) -> None:
    """Refuses a node whose operands contradict each other.

    Args:
        values: what is known about them.
        node: the node.
        inputs: what its operands are called.
        label: of the file.

    Raises:
        InputError: they do; both sizes are named. Or codes have a scale that none can have.
    """
    if node.op_type in _CODING and node.domain in STANDARD and len(inputs) > 1:
        _check_scale(values, node, inputs[1], label)
    check = _CHECKS.get(node.op_type) if node.domain in STANDARD else None
    if check is None:
        return
    shapes = [_shape(values, name) for name in inputs]
    shapes += [None] * (5 - len(shapes))
    complaint = check(node, shapes) if shapes[0] is not None and shapes[1] is not None else ""
    if complaint:
        raise InputError(f"{label}: {spell(node)}: {complaint}; the file contradicts itself, export it again")


def _check_scale(values: Values, node: NodeProto, name: str, label: str) -> None:
    if not values.is_constant(name):
        return
    scales = np.asarray(values.loaders[name]()).astype(np.float32).ravel()
    wrong = scales[~((scales > 0) & np.isfinite(scales))]
    if wrong.size:
        raise InputError(
            f"{label}: {spell(node)}: its scale {name!r} is {float(wrong[0]):g}; a scale is a finite number above 0, "
            "quantize the network again"
        )


def _shape(values: Values, name: str) -> Shape | None:
    known = values.types.get(name) if name else None
    return None if known is None or known.shape == UNKNOWN_RANK else known.shape


def _number(node: NodeProto, name: str, default: int) -> int:
    kind = AttributeProto.INT
    return next((int(each.i) for each in node.attribute if (each.name, each.type) == (name, kind)), default)


def _numbers(node: NodeProto, name: str, default: list[int]) -> list[int]:
    kind = AttributeProto.INTS
    return next((list(each.ints) for each in node.attribute if (each.name, each.type) == (name, kind)), default)


def _differ(first: int | None, second: int | None) -> bool:
    return first is not None and second is not None and first != second


def _spelled(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _conv(node: NodeProto, shapes: Shapes) -> str:
    x, weight, bias = shapes[0] or (), shapes[1] or (), shapes[2]
    groups = _number(node, "group", 1)
    if len(x) != len(weight) or len(x) < 3:
        return f"its input has the shape {_spelled(x)}, its weight {_spelled(weight)}"
    wanted = None if weight[1] is None else weight[1] * groups
    if _differ(x[1], wanted):
        grouped = f" in {groups} groups" if groups > 1 else ""
        return f"its input has {x[1]} channels, its weight {_spelled(weight)} takes {wanted}{grouped}"
    if bias is not None and _differ(bias[0] if len(bias) == 1 else -1, weight[0]):
        return f"its weight makes {weight[0]} channels, its bias has the shape {_spelled(bias)}"
    return _window(node, x, weight)


def _window(node: NodeProto, x: Shape, weight: Shape) -> str:
    """Whether a kernel is larger than the padded image."""
    rank = len(x) - 2
    if any(each.name == "auto_pad" and each.s not in (b"NOTSET", b"VALID") for each in node.attribute):
        return ""
    dilations, pads = _numbers(node, "dilations", [1] * rank), _numbers(node, "pads", [0] * 2 * rank)
    if len(dilations) != rank or len(pads) != 2 * rank:
        return ""
    for axis, (size, side) in enumerate(zip(x[2:], weight[2:], strict=True)):
        if size is None or side is None:
            continue
        reach, padded = dilations[axis] * (side - 1) + 1, size + pads[axis] + pads[rank + axis]
        if reach > padded:
            return f"its kernel reaches over {reach} of {padded} padded pixels"
    return ""


def _conv_transpose(node: NodeProto, shapes: Shapes) -> str:
    x, weight, bias = shapes[0] or (), shapes[1] or (), shapes[2]
    if len(x) != len(weight) or len(x) < 3:
        return f"its input has the shape {_spelled(x)}, its weight {_spelled(weight)}"
    if _differ(x[1], weight[0]):
        return f"its input has {x[1]} channels, its weight {_spelled(weight)} takes {weight[0]}"
    made = None if weight[1] is None else weight[1] * _number(node, "group", 1)
    if bias is not None and _differ(bias[0] if len(bias) == 1 else -1, made):
        return f"its weight makes {made} channels, its bias has the shape {_spelled(bias)}"
    return ""


def _gemm(node: NodeProto, shapes: Shapes) -> str:
    left, right = shapes[0] or (), shapes[1] or ()
    if len(left) != 2 or len(right) != 2:
        return f"its operands have the shapes {_spelled(left)} and {_spelled(right)}, which are no matrices"
    inner = left[0 if _number(node, "transA", 0) else 1], right[1 if _number(node, "transB", 0) else 0]
    return f"it multiplies {inner[0]} columns with {inner[1]} rows" if _differ(*inner) else ""


def _matmul(node: NodeProto, shapes: Shapes) -> str:
    left, right = shapes[0] or (), shapes[1] or ()
    if not left or not right:
        return "an operand is no matrix"
    rows = right[-2] if len(right) > 1 else right[0]
    if _differ(left[-1], rows):
        return f"it multiplies {left[-1]} columns with {rows} rows"
    return _broadcast(left[:-2], right[:-2])


def _elementwise(node: NodeProto, shapes: Shapes) -> str:
    return _broadcast(shapes[0] or (), shapes[1] or ())


def _broadcast(first: Shape, second: Shape) -> str:
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if _differ(one, other) and 1 not in (one, other):
            return f"the shapes {_spelled(first)} and {_spelled(second)} do not broadcast"
    return ""


def _batch_norm(node: NodeProto, shapes: Shapes) -> str:
    x = shapes[0] or ()
    for name, shape in zip(("scale", "bias", "mean", "variance"), shapes[1:5], strict=True):
        if len(x) > 1 and shape is not None and (len(shape) != 1 or _differ(shape[0], x[1])):
            return f"its input has {x[1]} channels, its {name} the shape {_spelled(shape)}"
    return ""


_CHECKS: dict[str, Callable[[NodeProto, Shapes], str]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
}
