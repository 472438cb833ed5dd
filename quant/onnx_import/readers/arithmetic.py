"""Elementwise functions and arithmetic, from ONNX."""

from __future__ import annotations

from functools import partial
from typing import Any

from bitwright.quant.onnx_import.calls import Misfit, Reader, require
from bitwright.quant.onnx_import.element_types import dtype_name
from bitwright.quant.onnx_import.readers.codes import belongs_to_codes
from bitwright.quant.onnx_import.readers.registry import READERS, axis_of, reads

_UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs",
    "Neg": "neg", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Erf": "erf", "Sin": "sin", "Cos": "cos",
    "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh",
    "Acosh": "acosh", "Atanh": "atanh", "IsInf": "isinf", "IsNaN": "isnan", "Selu": "selu", "Softsign": "softsign",
    "Reciprocal": "reciprocal", "HardSwish": "hardswish", "Mish": "mish", "Not": "logical_not", "Sign": "sign",
    "BitwiseNot": "bitwise_not",
}  # fmt: skip


def _unary(op: str, r: Reader) -> None:
    r.emit(op, [r.input(0)])


READERS.update({op_type: partial(_unary, op) for op_type, op in _UNARY.items()})


@reads("Clip")
def _clip(r: Reader) -> None:
    """`relu` and `hardtanh` where they say the same, as capture spells them."""
    x = r.input(0)
    if r.values.opset < 11:
        low = r.real("min", 0.0) if r.given("min") else None
        high = r.real("max", 0.0) if r.given("max") else None
    else:
        r.array(1), r.array(2)  # bounds that are computed are no numbers
        low, high = r.number(1), r.number(2)
    floating = r.dtype(x).startswith(("float", "bfloat"))
    if floating and low is not None and high is not None:
        r.emit("hardtanh", [x], min_val=low, max_val=high)
    elif floating and low == 0 and high is None:
        r.emit("relu", [x])
    else:
        r.emit("clamp", [x], min=low, max=high)


@reads("LeakyRelu")
def _leaky_relu(r: Reader) -> None:
    r.emit("leaky_relu", [r.input(0)], negative_slope=r.real("alpha", 0.01))


@reads("Elu", "Celu")
def _elu(r: Reader) -> None:
    alpha = r.real("alpha", 1.0)
    if r.node.op_type == "Celu":
        r.emit("celu", [r.input(0)], alpha=alpha)
    else:
        r.emit("elu", [r.input(0)], alpha=alpha, scale=1, input_scale=1)


@reads("Softplus")
def _softplus(r: Reader) -> None:
    r.emit("softplus", [r.input(0)], beta=1, threshold=20)


@reads("HardSigmoid")
def _hard_sigmoid(r: Reader) -> None:
    """ATen's has slope 1/6 and offset 1/2; Keras' 0.2 x + 0.5 is another function."""
    slope, offset = r.real("alpha", 0.2), r.real("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and offset == 0.5:
        r.emit("hardsigmoid", [r.input(0)])
        return
    x, kind = r.input(0), (r.shape(r.input(0)), r.dtype(r.input(0)))
    scaled = r.emit("mul", [x, None], [r.inner("scaled", *kind)], other=slope)
    moved = r.emit("add", [scaled, None], [r.inner("moved", *kind)], other=offset, alpha=1)
    r.emit("hardtanh", [moved], min_val=0.0, max_val=1.0)


@reads("Gelu", "com.microsoft::Gelu", "com.microsoft::FastGelu")
def _gelu(r: Reader) -> None:
    require(r.optional(1) is None, "a bias of its own")
    tanh = "tanh" if r.node.op_type == "FastGelu" else r.text("approximate", "none")
    r.emit("gelu", [r.input(0)], approximate=tanh)


@reads("Swish")
def _swish(r: Reader) -> None:
    require(r.real("alpha", 1.0) == 1, "a slope other than 1")
    r.emit("silu", [r.input(0)])


@reads("PRelu")
def _prelu(r: Reader) -> None:
    """The slope is `[C, 1, 1]` in ONNX and `[C]` in ATen."""
    slope = r.input(1)
    require(r.values.is_constant(slope), "a slope that is computed")
    r.emit("prelu", [r.input(0), r.draft.unshaped(slope)])


_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Mod": "remainder",
           "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "BitwiseAnd": "bitwise_and",
           "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Equal": "eq", "Less": "lt", "Greater": "gt",
           "LessOrEqual": "le", "GreaterOrEqual": "ge"}  # fmt: skip
# They take a number in the place of their second tensor; the others have an overload without it.
_TENSOR_OVERLOADS = frozenset({"add", "sub", "mul", "div", "rsub"})


@reads(*_BINARY)
def _binary(r: Reader) -> None:
    """A number in the file is a number in ATen, too."""
    op, left, right = _BINARY[r.node.op_type], r.input(0), r.input(1)
    if op == "mul" and belongs_to_codes(r):
        return
    if op == "remainder" and r.integer("fmod", 0):
        op = "fmod"
    more: dict[str, Any] = {"alpha": 1} if op in ("add", "sub") else {}
    first, second = r.draft.scalar(left), r.draft.scalar(right)
    if second is not None:
        name = "exponent" if op == "pow" else "other"
        r.emit(op, [left, None] if op in _TENSOR_OVERLOADS else [left], **{**more, name: second})
    elif first is None:
        r.emit(op, [left, right], **more)
    elif op in ("add", "mul"):
        r.emit(op, [right, None], other=first, **more)
    elif op == "sub":
        r.emit("rsub", [right, None], other=first, alpha=1)
    else:
        more["self"] = first
        r.emit(op, [None, right], **more)


@reads("Max", "Min", "Sum")
def _several(r: Reader) -> None:
    """Of any number of operands, one after the other."""
    op = {"Max": "maximum", "Min": "minimum", "Sum": "add"}[r.node.op_type]
    names = [r.input(i) for i in range(len(r.inputs))]
    require(bool(names), "no operands")
    more: dict[str, Any] = {"alpha": 1} if op == "add" else {}
    if len(names) == 1:
        r.alias(names[0])
        return
    if len(names) == 2 and op != "add":
        bound = r.draft.scalar(names[1])
        if bound is not None:
            low, high = (bound, None) if op == "maximum" else (None, bound)
            r.emit("clamp", [names[0]], min=low, max=high)
            return
    value, kind = names[0], r.values.types[r.node.output[0]]
    for position, other in enumerate(names[1:-1]):
        value = r.emit(op, [value, other], [r.inner(str(position), kind.shape, kind.dtype)], **more)
    r.emit(op, [value, names[-1]], **more)


@reads("Where")
def _where(r: Reader) -> None:
    inputs: list[str | None] = [r.input(0), r.input(1), r.input(2)]
    numbers: dict[str, Any] = {}
    for position, name in ((1, "self"), (2, "other")):
        number = r.draft.scalar(inputs[position] or "")
        if number is not None:
            inputs[position], numbers[name] = None, number
    r.emit("where", inputs, **numbers)


@reads("Cast", "CastLike")
def _cast(r: Reader) -> None:
    x = r.input(0)
    wanted = r.dtype(r.input(1)) if r.node.op_type == "CastLike" else dtype_name(r.integer("to", 0))
    if not wanted:
        raise Misfit("an element type that ONNX does not have")
    if wanted == r.dtype(x):
        r.alias(x)
    else:
        r.emit("to", [x], dtype=wanted)


@reads("Softmax", "LogSoftmax")
def _softmax(r: Reader) -> None:
    """Before opset 13 it flattened everything behind its axis, which is the same along the last one."""
    x = r.input(0)
    before = r.values.opset < 13
    axis = axis_of(r.integer("axis", 1 if before else -1), r.rank(x))
    require(not before or axis == r.rank(x) - 1, "an axis before the last one, in an opset below 13")
    op = "softmax" if r.node.op_type == "Softmax" else "log_softmax"
    r.emit(op, [x], dim=axis if r.integer("axis", -1) >= 0 else axis - r.rank(x), dtype=None)


@reads("Identity", "Dropout")
def _same(r: Reader) -> None:
    """A dropout does nothing at inference; its mask is of no use then."""
    require(len([name for name in r.node.output if name]) == 1, "a mask that somebody asks for")
    r.alias(r.input(0))
