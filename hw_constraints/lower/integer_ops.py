"""What operators compute on integer codes: real values are `code · scale`, results are rounded and saturate.

Sums of products are formed in float64, where they are exact integers as long as they stay below 2^53, in any order of
summation; so tiles and partial sums give the very same accumulators as the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from bitwright.quant.errors import InputError
from bitwright.quant.graph import Node

Array = npt.NDArray[Any]
Real = npt.NDArray[np.float64]

_CODES: Mapping[int, np.dtype[Any]] = {
    8: np.dtype(np.int8),
    16: np.dtype(np.int16),
    32: np.dtype(np.int32),
    64: np.dtype(np.int64),
}


def code_type(bits: int) -> np.dtype[Any]:
    """The type that holds the codes of so many bits.

    Raises:
        InputError: no whole number of bytes.
    """
    if bits not in _CODES:
        raise InputError(f"the interpreter knows codes of 8, 16, 32 and 64 bits, not of {bits}")
    return _CODES[bits]


def to_codes(values: Real, scale: float, bits: int, zero_point: int | None = None) -> Array:
    """`round(values / scale) + zero point`, halves to even, saturated; what is no number becomes 0.

    Without a zero point codes are symmetric, `±(2^(bits - 1) - 1)`; with one, all codes are used.
    """
    top = float(2 ** (min(bits, 31) - 1) - 1)
    zero, bottom = (0, -top) if zero_point is None else (zero_point, -top - 1)
    codes = np.rint(np.nan_to_num(values / scale, posinf=2 * top, neginf=-2 * top)) + zero
    return np.asarray(np.clip(codes, bottom, top), dtype=code_type(bits))


def _scalar_or(node: Node, operands: list[Real], name: str = "other") -> Any:
    return operands[1] if len(operands) > 1 else node.attributes[name]


def _clamp(node: Node, operands: list[Real]) -> Real:
    low, high = node.attributes.get("min"), node.attributes.get("max")
    return np.asarray(np.clip(operands[0], -np.inf if low is None else low, np.inf if high is None else high))


def _batch_norm(node: Node, operands: list[Real]) -> Real:
    x, *parameters = operands
    per_channel = [each.reshape(1, -1, *(1,) * (x.ndim - 2)) if each.ndim == 1 else each for each in parameters]
    weight, bias, mean, var = per_channel
    return np.asarray((x - mean) / np.sqrt(np.abs(var) + node.attributes.get("eps", 1e-5)) * weight + bias)


_UNARY: dict[str, Callable[[Real], Real]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "neg": lambda x: -x,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "tanh": np.tanh,
    "silu": lambda x: x / (1.0 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / np.sqrt(2.0))),
    "hardsigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    "softplus": lambda x: np.logaddexp(0.0, x),
}
_OTHERS: dict[str, Callable[[Node, list[Real]], Real]] = {
    "hardtanh": lambda n, o: np.clip(o[0], n.attributes.get("min_val", -1.0), n.attributes.get("max_val", 1.0)),
    "clamp": _clamp,
    "leaky_relu": lambda n, o: np.where(o[0] > 0, o[0], o[0] * n.attributes.get("negative_slope", 0.01)),
    "elu": lambda n, o: np.where(o[0] > 0, o[0], n.attributes.get("alpha", 1.0) * np.expm1(np.minimum(o[0], 0.0))),
    "add": lambda n, o: o[0] + n.attributes.get("alpha", 1) * _scalar_or(n, o),
    "sub": lambda n, o: o[0] - n.attributes.get("alpha", 1) * _scalar_or(n, o),
    "rsub": lambda n, o: _scalar_or(n, o) - n.attributes.get("alpha", 1) * o[0],
    "mul": lambda n, o: o[0] * _scalar_or(n, o),
    "div": lambda n, o: o[0] / _scalar_or(n, o),
    "pow": lambda n, o: np.power(o[0], _scalar_or(n, o, "exponent")),
    "maximum": lambda n, o: np.maximum(o[0], _scalar_or(n, o)),
    "minimum": lambda n, o: np.minimum(o[0], _scalar_or(n, o)),
    "batch_norm": _batch_norm,
}


def elementwise(node: Node, operands: list[Real]) -> Real:
    """One operator on real values that are broadcast against each other.

    Raises:
        InputError: the interpreter does not know the operator.
    """
    with np.errstate(all="ignore"):
        if node.op in _UNARY:
            return _UNARY[node.op](np.ascontiguousarray(operands[0]))
        if node.op in _OTHERS:
            return _OTHERS[node.op](node, operands)
    raise InputError(f"node {node.name!r}: the interpreter does not know {node.op!r}")


def products(windows: Real, weights: Real) -> Real:
    """Sums of products over a group's inputs and taps.

    Args:
        windows: `[batch, groups, taps, positions]`.
        weights: `[batch or 1, groups, out_channels, taps]`.

    Returns:
        Accumulators `[batch, groups, out_channels, positions]`.
    """
    return np.asarray(np.matmul(weights, windows))


_REDUCTIONS: Mapping[str, Callable[..., Real]] = {
    "mean": np.sum,  # divided when all are summed
    "sum": np.sum,
    "amax": np.max,
    "amin": np.min,
    "max": np.max,
    "min": np.min,
}


def reduce_rows(node: Node, rows: Real, before: Real | None) -> Real:
    """Reduces `[results, part]` along its last axis, together with the parts before.

    Raises:
        InputError: the interpreter does not know the operator.
    """
    if node.op not in _REDUCTIONS:
        raise InputError(f"node {node.name!r}: the interpreter does not know {node.op!r}")
    part = np.asarray(_REDUCTIONS[node.op](rows, axis=-1))
    if before is None:
        return part
    if node.op in ("mean", "sum"):
        return np.asarray(before + part)
    return np.asarray(np.maximum(before, part) if node.op in ("amax", "max") else np.minimum(before, part))


def along_rows(node: Node, rows: Real) -> Real:
    """An operator whose results depend on whole rows `[rows, length]`.

    Raises:
        InputError: the interpreter does not know the operator.
    """
    if node.op in ("softmax", "log_softmax"):
        shifted = rows - rows.max(axis=-1, keepdims=True)
        # Sums in one order for every row, however many rows a tile has.
        total = np.cumsum(np.exp(shifted), axis=-1)[..., -1:]
        return np.asarray(np.exp(shifted) / total if node.op == "softmax" else shifted - np.log(total))
    if node.op == "cumsum":
        return np.cumsum(rows, axis=-1)
    raise InputError(f"node {node.name!r}: the interpreter does not know {node.op!r}")
