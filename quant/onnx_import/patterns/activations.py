"""Activations that are written out: products and quotients, clamps, roots."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeGuard

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network
from bitwright.quant.onnx_import.patterns.registry import ends_in


@dataclass
class _Product:
    """A number times some tensors, and the calls that multiply them."""

    factor: float = 1.0
    tensors: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Factors of one activation stand at most so deep: gelu by tanh multiplies three times.
_DEEPEST = 4


def _product(network: Network, name: str, last: Call | None = None, depth: int = 0) -> _Product:
    """Takes a product apart, as far as each inner one is read by the next alone."""
    call = last or network.maker(name, "mul", "div")
    if call is None or (last is None and len(network.readers.get(name, ())) != 1):
        return _Product(tensors=[name])
    number = call.attributes.get("other")
    if call.op == "div" and not (_is_number(number) and number):
        return _Product(tensors=[name])
    product = _Product(calls=[call])
    if _is_number(number):
        product.factor = float(number) if call.op == "mul" else 1 / float(number)
    for operand in call.operands:
        deeper = depth + 1 < _DEEPEST
        part = _product(network, operand, depth=depth + 1) if deeper else _Product(tensors=[operand])
        product.factor *= part.factor
        product.tensors += part.tensors
        product.calls += part.calls
    return product


def _near(value: object, wanted: float) -> bool:
    return _is_number(value) and math.isclose(float(value), wanted, rel_tol=1e-3)


@ends_in("mul", "div")
def _gate(network: Network, call: Call) -> Match | None:
    """`x * f(x)`: silu, hardswish, mish, and gelu by erf or by tanh."""
    product = _product(network, call.outputs[0], call)
    if len(product.tensors) != 2:
        return None
    for x, gate in (product.tensors, product.tensors[::-1]):
        found = _named_gate(network, x, gate, product.factor)
        if found is not None:
            op, attributes, inner = found
            return Match(op=op, inputs=[x], attributes=attributes, consumed=[*product.calls[1:], *inner])
    return None


_SIMPLE_GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def _named_gate(network: Network, x: str, gate: str, factor: float) -> tuple[str, dict[str, object], list[Call]] | None:
    last = network.maker(gate)
    if last is None or not last.operands:
        return None
    if last.op in _SIMPLE_GATES and last.operands == [x] and _near(factor, 1):
        return _SIMPLE_GATES[last.op], {}, [last]
    if last.op == "tanh" and _near(factor, 1):
        soft = network.maker(last.operands[0], "softplus")
        return ("mish", {}, [last, soft]) if soft and soft.operands == [x] else None
    moved = _three_added_and_clamped(network, last)
    if moved is not None and _near(factor, 1 / 6) and moved[0] == x:
        return "hardswish", {}, moved[1]
    one_added = last.op == "add" and _near(last.attributes.get("other"), 1)
    return _gelu(network, x, last) if one_added and _near(factor, 0.5) else None


def _gelu(network: Network, x: str, add: Call) -> tuple[str, dict[str, object], list[Call]] | None:
    """0.5 x (1 + erf(x / sqrt(2))), or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for the erf."""
    curve = network.maker(add.operands[0], "erf", "tanh")
    if curve is None:
        return None
    inner = _product(network, curve.operands[0])
    if curve.op == "erf":
        fits = inner.tensors == [x] and _near(inner.factor, math.sqrt(0.5))
        return ("gelu", {"approximate": "none"}, [add, curve, *inner.calls]) if fits else None
    cubic = network.maker(inner.tensors[0], "add") if len(inner.tensors) == 1 else None
    if cubic is None or not _near(inner.factor, math.sqrt(2 / math.pi)) or x not in cubic.operands:
        return None
    term = _product(network, next((name for name in cubic.operands if name != x), x))
    power = network.maker(term.tensors[0], "pow") if len(term.tensors) == 1 else None
    cubes = term.tensors == [x] * 3 or (
        power is not None and power.operands == [x] and _near(power.attributes.get("exponent"), 3)
    )
    if not cubes or not _near(term.factor, 0.044715):
        return None
    return "gelu", {"approximate": "tanh"}, [add, curve, *inner.calls, cubic, *term.calls, *([power] if power else [])]


def _three_added_and_clamped(network: Network, clamp: Call) -> tuple[str, list[Call]] | None:
    """The operand of `clamp(x + 3, 0, 6)`, and its calls."""
    if clamp.op != "hardtanh" or (clamp.attributes["min_val"], clamp.attributes["max_val"]) != (0, 6):
        return None
    add = network.maker(clamp.operands[0], "add")
    return (add.operands[0], [clamp, add]) if add and _near(add.attributes.get("other"), 3) else None


@ends_in("div", "mul")
def _hard_sigmoid(network: Network, call: Call) -> Match | None:
    """`clamp(x + 3, 0, 6) / 6`."""
    product = _product(network, call.outputs[0], call)
    clamp = network.maker(product.tensors[0]) if len(product.tensors) == 1 else None
    moved = _three_added_and_clamped(network, clamp) if clamp else None
    if moved is None or not _near(product.factor, 1 / 6):
        return None
    return Match(op="hardsigmoid", inputs=[moved[0]], consumed=[*product.calls[1:], *moved[1]])


@ends_in("clamp")
def _clamp_of_clamp(network: Network, call: Call) -> Match | None:
    """A lower and an upper bound one behind the other."""
    inner = network.maker(call.operands[0], "clamp", "relu")
    if inner is None or call.attributes["min"] is not None or call.attributes["max"] is None:
        return None
    low = 0.0 if inner.op == "relu" else inner.attributes["min"]
    if low is None or (inner.op == "clamp" and inner.attributes["max"] is not None):
        return None
    bounds = {"min_val": low, "max_val": call.attributes["max"]}
    return Match(op="hardtanh", inputs=inner.inputs, attributes=bounds, consumed=[inner])


@ends_in("clamp")
def _relu(network: Network, call: Call) -> Match | None:
    """A lower bound of zero alone, where the file spells it as the larger of two."""
    floating = network.draft.values.types[call.outputs[0]].dtype.startswith(("float", "bfloat"))
    if not floating or call.attributes != {"min": 0, "max": None}:
        return None
    follower = next(iter(network.readers.get(call.outputs[0], ())), None)
    may_continue = follower is not None and follower.op == "clamp" and network.draft.is_own
    return None if may_continue else Match(op="relu", inputs=call.inputs)


@ends_in("reciprocal", "div")
def _rsqrt(network: Network, call: Call) -> Match | None:
    if call.op == "div" and not _near(call.attributes.get("self"), 1):
        return None
    root = network.maker(call.operands[0], "sqrt")
    return Match(op="rsqrt", inputs=root.inputs, consumed=[root]) if root else None


@ends_in("logical_not")
def _not_equal(network: Network, call: Call) -> Match | None:
    equal = network.maker(call.operands[0], "eq")
    return Match(op="ne", inputs=equal.inputs, attributes=equal.attributes, consumed=[equal]) if equal else None


@ends_in("mul")
def _glu(network: Network, call: Call) -> Match | None:
    """One half times the sigmoid of the other."""
    if len(call.operands) != 2:
        return None
    gate = network.maker(call.operands[1], "sigmoid")
    halves = network.maker(gate.operands[0], "split_with_sizes") if gate else None
    if gate is None or halves is None or halves.outputs != [call.operands[0], gate.operands[0]]:
        return None
    return Match(op="glu", inputs=halves.inputs, attributes={"dim": halves.attributes["dim"]}, consumed=[gate, halves])
