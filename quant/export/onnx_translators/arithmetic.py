"""Elementwise functions and arithmetic in ONNX."""

from __future__ import annotations

import numpy as np

from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    result_dtype,
    translates,
    typed_operand,
    unsupported,
)
from bitwright.quant.graph import Node

_UNARY = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "neg": "Neg", "floor": "Floor", "ceil": "Ceil", "round": "Round", "erf": "Erf", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "isinf": "IsInf", "selu": "Selu",
    "reciprocal": "Reciprocal", "hardswish": "HardSwish", "mish": "Mish", "logical_not": "Not",
    "sign": "Sign", "atan": "Atan", "isnan": "IsNaN",
}  # fmt: skip


@translates(*_UNARY)
def _unary(b: OnnxBuilder, node: Node) -> None:
    b.emit(_UNARY[node.op], [b.operand(node, 0)], b.result(node))


@translates("hardtanh", "clamp", "clamp_min", "clamp_max", "relu6")
def _clamp(b: OnnxBuilder, node: Node) -> None:
    attributes = node.attributes
    if len(node.tensors) > 1:
        raise unsupported(node, "tensors as bounds")
    low = 0.0 if node.op == "relu6" else attributes.get("min_val", attributes.get("min"))
    high = 6.0 if node.op == "relu6" else attributes.get("max_val", attributes.get("max"))
    dtype, out = result_dtype(b, node), b.result(node)
    bounds = [b.constant(out, np.asarray(v), dtype) if v is not None else "" for v in (low, high)]
    b.emit("Clip", [b.operand(node, 0), *bounds], out)


@translates("leaky_relu", "elu", "celu", "hardsigmoid", "gelu", "silu", "rsqrt", "log1p", "square", "softplus")
def _composed(b: OnnxBuilder, node: Node) -> None:
    x, out, attributes = b.operand(node, 0), b.result(node), node.attributes
    if node.op == "leaky_relu":
        b.emit("LeakyRelu", [x], out, alpha=float(attributes["negative_slope"]))
    elif node.op == "elu":
        if attributes["scale"] != 1 or attributes["input_scale"] != 1:
            raise unsupported(node, "scale or input_scale other than 1")
        b.emit("Elu", [x], out, alpha=float(attributes["alpha"]))
    elif node.op == "celu":
        b.emit("Celu", [x], out, alpha=float(attributes["alpha"]))
    elif node.op == "softplus":
        if attributes["beta"] != 1:
            raise unsupported(node, "beta other than 1")
        b.emit("Softplus", [x], out)
    elif node.op == "hardsigmoid":
        b.emit("HardSigmoid", [x], out, alpha=1 / 6, beta=0.5)
    elif node.op == "gelu":
        b.emit("Gelu", [x], out, approximate=attributes["approximate"])
    elif node.op == "silu":
        b.emit("Mul", [x, b.emit("Sigmoid", [x], b.spare(out))], out)
    elif node.op == "rsqrt":
        b.emit("Reciprocal", [b.emit("Sqrt", [x], b.spare(out))], out)
    elif node.op == "log1p":
        b.emit("Log", [b.emit("Add", [x, b.constant(out, np.float32(1))], b.spare(out))], out)
    else:
        b.emit("Mul", [x, x], out)


@translates("glu")
def _glu(b: OnnxBuilder, node: Node) -> None:
    out, halves = b.result(node), [b.spare(b.result(node)) for _ in range(2)]
    b.emit("Split", [b.operand(node, 0)], halves, axis=node.attributes["dim"], num_outputs=2)
    b.emit("Mul", [halves[0], b.emit("Sigmoid", [halves[1]], b.spare(out))], out)


@translates("prelu")
def _prelu(b: OnnxBuilder, node: Node) -> None:
    out, rank = b.result(node), len(b.shape(node.tensors[0]))
    slope = b.emit("Reshape", [b.operand(node, 1), b.constant(out, [-1, *[1] * (rank - 2)])], b.spare(out))
    b.emit("PRelu", [b.operand(node, 0), slope], out)


_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "maximum": "Max", "minimum": "Min", "pow": "Pow",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
}  # fmt: skip


@translates(*_BINARY)
def _binary(b: OnnxBuilder, node: Node) -> None:
    dtype, out = result_dtype(b, node), b.result(node)
    other = "exponent" if node.op == "pow" else "other"
    left = typed_operand(b, node, 0, dtype, "self")
    right = typed_operand(b, node, 1, dtype, other)
    alpha = node.attributes.get("alpha", 1)
    if alpha != 1:
        right = b.emit("Mul", [right, b.constant(out, np.asarray(alpha), dtype)], b.spare(out))
    b.emit(_BINARY[node.op], [left, right], out)


@translates("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "__and__", "__or__", "__xor__")
def _bitwise(b: OnnxBuilder, node: Node) -> None:
    """On booleans the logical operator, on integers that of their bits."""
    dtype, kind = result_dtype(b, node), node.op.strip("_").removeprefix("bitwise_").capitalize()
    op = kind if dtype == "bool" else f"Bitwise{kind}"
    operands = [typed_operand(b, node, 0, dtype, "self")]
    if kind != "Not":
        operands.append(typed_operand(b, node, 1, dtype))
    b.emit(op, operands, b.result(node))


@translates("remainder", "fmod")
def _remainder(b: OnnxBuilder, node: Node) -> None:
    """Remainder has the divisor's sign, fmod the dividend's; ONNX's Mod has the former for integers only."""
    dtype, out = result_dtype(b, node), b.result(node)
    left, right = typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)
    if node.op == "fmod" or not dtype.startswith("float"):
        b.emit("Mod", [left, right], out, fmod=int(node.op == "fmod"))
        return
    whole = b.emit("Floor", [b.emit("Div", [left, right], b.spare(out))], b.spare(out))
    b.emit("Sub", [left, b.emit("Mul", [whole, right], b.spare(out))], out)


@translates("atan2")
def _atan2(b: OnnxBuilder, node: Node) -> None:
    """`atan(y / x)`, a half turn further where x < 0, a quarter turn where x = 0; zeros have no sign here."""
    dtype, out = result_dtype(b, node), b.result(node)
    y, x = typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)
    zero, one, half = (b.constant(out, np.asarray(value), dtype) for value in (0.0, 1.0, np.pi))
    on_axis, behind = b.emit("Equal", [x, zero], b.spare(out)), b.emit("Less", [x, zero], b.spare(out))
    below = b.emit("Less", [y, zero], b.spare(out))
    ratio = b.emit("Div", [y, b.emit("Where", [on_axis, one, x], b.spare(out))], b.spare(out))
    turn = b.emit("Where", [below, b.emit("Neg", [half], b.spare(out)), half], b.spare(out))
    turn = b.emit("Where", [behind, turn, zero], b.spare(out))
    off_axis = b.emit("Add", [b.emit("Atan", [ratio], b.spare(out)), turn], b.spare(out))
    quarter = b.emit("Mul", [b.emit("Sign", [y], b.spare(out)), b.constant(out, np.asarray(np.pi / 2), dtype)],
                     b.spare(out))  # fmt: skip
    b.emit("Where", [on_axis, quarter, off_axis], out)


@translates("rsub")
def _rsub(b: OnnxBuilder, node: Node) -> None:
    dtype = result_dtype(b, node)
    if node.attributes.get("alpha", 1) != 1:
        raise unsupported(node, "alpha other than 1")
    b.emit("Sub", [typed_operand(b, node, 1, dtype), typed_operand(b, node, 0, dtype, "self")], b.result(node))


@translates("div", "floor_divide")
def _div(b: OnnxBuilder, node: Node) -> None:
    rounding = "floor" if node.op == "floor_divide" else node.attributes.get("rounding_mode")
    dtype, out = result_dtype(b, node), b.result(node)
    operands = [typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)]
    if rounding and not dtype.startswith("float"):
        if rounding == "floor":  # ONNX cuts towards zero; what Mod leaves has the divisor's sign
            rest = b.emit("Mod", operands, b.spare(out), fmod=0)
            operands[0] = b.emit("Sub", [operands[0], rest], b.spare(out))
        b.emit("Div", operands, out)
        return
    quotient = b.emit("Div", operands, b.spare(out) if rounding else out)
    if rounding == "floor":
        b.emit("Floor", [quotient], out)
    elif rounding == "trunc":
        size = b.emit("Floor", [b.emit("Abs", [quotient], b.spare(out))], b.spare(out))
        b.emit("Mul", [size, b.emit("Sign", [quotient], b.spare(out))], out)


_COMPARE = {"eq": "Equal", "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual", "ne": "Equal"}


@translates(*_COMPARE)
def _compare(b: OnnxBuilder, node: Node) -> None:
    dtype, out = b.graph.tensors[node.tensors[0]].dtype, b.result(node)
    operands = [typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)]
    if node.op == "ne":
        b.emit("Not", [b.emit("Equal", operands, b.spare(out))], out)
    else:
        b.emit(_COMPARE[node.op], operands, out)


@translates("addcmul", "addcdiv")
def _addcmul(b: OnnxBuilder, node: Node) -> None:
    """`x + value * y * z`, or `x + value * y / z`."""
    out, value = b.result(node), node.attributes["value"]
    op = "Mul" if node.op == "addcmul" else "Div"
    product = b.emit(op, [b.operand(node, 1), b.operand(node, 2)], b.spare(out))
    if value != 1:
        product = b.emit("Mul", [product, b.constant(out, np.asarray(value), result_dtype(b, node))], b.spare(out))
    b.emit("Add", [b.operand(node, 0), product], out)


@translates("where")
def _where(b: OnnxBuilder, node: Node) -> None:
    dtype = result_dtype(b, node)
    operands = [b.operand(node, 0), typed_operand(b, node, 1, dtype, "self"), typed_operand(b, node, 2, dtype)]
    b.emit("Where", operands, b.result(node))


@translates("masked_fill")
def _masked_fill(b: OnnxBuilder, node: Node) -> None:
    value = typed_operand(b, node, 2, result_dtype(b, node), "value")
    b.emit("Where", [b.operand(node, 1), value, b.operand(node, 0)], b.result(node))


@translates("to", "type_as")
def _cast(b: OnnxBuilder, node: Node) -> None:
    b.emit("Cast", [b.operand(node, 0)], b.result(node), to=ELEMENT_TYPES[result_dtype(b, node)])


@translates("softmax", "log_softmax")
def _softmax(b: OnnxBuilder, node: Node) -> None:
    op = "Softmax" if node.op == "softmax" else "LogSoftmax"
    b.emit(op, [b.operand(node, 0)], b.result(node), axis=node.attributes["dim"])
