"""Which integer arithmetic belongs to which operator type of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.quant.graph import Node
from bitwright.quant.integer import elementwise, layers, pools
from bitwright.quant.integer.codes import Array, Grid
from bitwright.quant.integer.requantize import Rounding
from bitwright.quant.integer.window import Window


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a device rounds.

    Attributes:
        rounding: of sums of products, and of pools.
        add: an addition of two tensors.
        multiply: a product of two tensors.
        own: rules of this device, by operator type, where it does not compute as `RULES` say.
    """

    rounding: Rounding
    add: Callable[[Array, Array, elementwise.Grids], Array]
    multiply: Callable[[Array, Array, elementwise.Grids], Array]
    own: Mapping[str, Callable[[Call], Array | None]] = field(default_factory=dict)


MLAS = Arithmetic(rounding=Rounding.FLOAT32, add=elementwise.add_mlas, multiply=elementwise.multiply_mlas)


@dataclass(frozen=True)
class Call:
    """One operator on codes: its node, operands with their grids, bias codes, and the grid of its result."""

    node: Node
    operands: list[tuple[Array, Grid]]
    bias: Array | None
    result: Grid
    arithmetic: Arithmetic

    @property
    def grids(self) -> elementwise.Grids:
        """Of the first two operands and the result."""
        return self.operands[0][1], self.operands[1][1], self.result


def _convolution(call: Call) -> Array | None:
    (data, _), (weights, _) = call.operands
    rank, attributes = data.ndim - 2, call.node.attributes
    if data.ndim != weights.ndim or isinstance(attributes["padding"], str):
        return None
    window = _window(call.node, weights.shape[2:], rank)
    groups, rounding = int(attributes["groups"]), call.arithmetic.rounding
    return layers.convolution(data, weights, call.bias, call.grids, window, groups=groups, rounding=rounding)


def _window(node: Node, kernel: tuple[int, ...], rank: int) -> Window:
    padding = tuple((each, each) for each in _spread(node.attributes["padding"], rank))
    # A pool that is told no stride moves by its own size.
    stride = _spread(node.attributes["stride"], rank) if node.attributes["stride"] else kernel
    return Window(kernel=kernel, stride=stride, padding=padding, dilation=_spread(node.attributes["dilation"], rank))


def _spread(given: Any, rank: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    return tuple(int(value) for value in (values * rank if len(values) == 1 else values))


def _linear(call: Call) -> Array | None:
    (data, data_grid), (weights, weight_grid) = call.operands
    grids = data_grid, weight_grid, call.result
    return layers.matrix_product(data, weights.T, call.bias, grids, rounding=call.arithmetic.rounding)


def _product(call: Call) -> Array | None:
    (left, left_grid), (right, right_grid) = call.operands
    # Scales of rows stand the other way round; those of a vector differ within one sum.
    if left_grid.scale.ndim or (right_grid.scale.ndim and right.ndim < 2):
        return None
    return layers.matrix_product(left, right, None, call.grids, rounding=call.arithmetic.rounding)


def _add(call: Call) -> Array | None:
    if len(call.operands) != 2 or call.node.attributes.get("alpha", 1) != 1:
        return None
    (left, _), (right, _) = call.operands
    return call.arithmetic.add(left, right, call.grids)


def _multiply(call: Call) -> Array | None:
    if len(call.operands) != 2:
        return None
    (left, _), (right, _) = call.operands
    return call.arithmetic.multiply(left, right, call.grids)


def _max_pool(call: Call) -> Array | None:
    ((data, grid),) = call.operands
    rank = int(call.node.op[-2])
    if call.node.attributes.get("ceil_mode") or data.ndim != rank + 2:
        return None
    return pools.max_pool(data, _window(call.node, _spread(call.node.attributes["kernel_size"], rank), rank), grid)


def _global_average(call: Call) -> Array | None:
    ((data, grid),) = call.operands
    sizes = call.node.attributes.get("output_size")
    everywhere = sizes is not None and all(
        size == 1 for size in (sizes if isinstance(sizes, list | tuple) else [sizes])
    )
    if not everywhere or data.ndim != 4 or call.arithmetic.rounding is not Rounding.FLOAT32:
        return None
    return pools.global_average_pool(data, (grid, call.result))


def _sigmoid(call: Call) -> Array | None:
    ((data, grid),) = call.operands
    return elementwise.look_up(data, elementwise.table(lambda x: 1 / (1 + np.exp(-x)), grid, call.result), grid)


RULES: Mapping[str, Callable[[Call], Array | None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _product),
    "add": _add,
    "mul": _multiply,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    "adaptive_avg_pool2d": _global_average,
    "sigmoid": _sigmoid,
}
