"""One quantized operator at a time in ONNX Runtime, on random cases, beside the integer reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer import elementwise, layers, pools
from bitwright.quant.integer.codes import Array, Grid
from bitwright.quant.integer.window import Window

Case = tuple[Array, Array]
MICROSOFT = "com.microsoft"
_LARGEST_RATIO = 256.0  # QLinearGlobalAveragePool refuses more: "parameter out of computation range"


class Draw:
    """Random grids, codes and windows; scales are ratios of small numbers, so that ties are common."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def whole(self, low: int, high: int) -> int:
        """One of `low … high`."""
        return int(self.random.integers(low, high + 1))

    def scale(self, largest: int = 60) -> np.float32:
        """One of few, so that quotients of scales are short fractions and ties come up."""
        return np.float32(self.whole(1, largest)) / np.float32(self.random.choice([255.0, 100.0, 127.0, 64.0, 3.0]))

    def grid(self, name: str, *, scale: Any = None, zero_point: int | None = None) -> Grid:
        """A grid of a format; scale and zero point are drawn where they are not given."""
        fmt = FORMATS[name]
        assert isinstance(fmt, IntFormat)
        zero = self.whole(fmt.code_min, fmt.code_max) if zero_point is None else zero_point
        return Grid(format=fmt, scale=self.scale() if scale is None else scale, zero_point=zero)

    def codes(self, grid: Grid, *shape: int) -> Array:
        """Codes in use on a grid."""
        return self.random.integers(grid.low, grid.high + 1, shape).astype(grid.format.name)

    def window(self, *, padded: bool = True) -> Window:
        """A small window in two dimensions."""
        kernel = (self.whole(1, 3), self.whole(1, 3))
        padding = tuple((self.whole(0, k - 1), self.whole(0, k - 1)) if padded else (0, 0) for k in kernel)
        return Window(
            kernel=kernel,
            stride=(self.whole(1, 2), self.whole(1, 2)),
            padding=padding,
            dilation=(1, 1),
        )

    def name(self) -> str:
        """Signed or unsigned bytes."""
        return str(self.random.choice(["uint8", "int8"]))


def run_operator(
    op: str,
    names: list[str],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    *,
    domain: str = "",
    **more: Any,
) -> Array:
    """The result of one node."""
    infos = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for key, value in inputs.items()
    ]
    kind = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **more)],
        "one",
        infos,
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, dict(inputs))[0]
    return result


def numbers(prefix: str, grid: Grid) -> dict[str, Array]:
    """Scale and zero point as initializers."""
    zero = np.full(grid.scale.shape, grid.zero_point, grid.format.name)
    return {f"{prefix}s": grid.scale, f"{prefix}z": zero}


def convolution(seed: int) -> Case:
    """QLinearConv: groups, depthwise, strides, uneven padding, dilation, per-channel weights, bias."""
    draw = Draw(seed)
    window = draw.window()
    groups = draw.whole(1, 3)
    inner, outer = groups * draw.whole(1, 4), groups * draw.whole(1, 4)
    data, result = draw.grid("uint8"), draw.grid("uint8", scale=draw.scale() * 20)
    scales = np.array([draw.scale() for _ in range(outer)], np.float32)
    weights = draw.grid("int8", scale=scales if draw.whole(0, 1) else draw.scale(), zero_point=0)
    x = draw.codes(data, 1, inner, draw.whole(3, 8), draw.whole(3, 8))
    w = draw.codes(weights, outer, inner // groups, *window.kernel)
    bias = draw.random.integers(-5000, 5000, outer).astype(np.int32)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    constants = {"w": w, "b": bias, **numbers("x", data), **numbers("w", weights), **numbers("y", result)}
    (top, bottom), (left, right) = window.padding
    found = run_operator(
        "QLinearConv",
        names,
        {"x": x},
        constants,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=[top, left, bottom, right],
        group=groups,
    )
    return found, layers.convolution(x, w, bias, (data, weights, result), window, groups=groups)


def matrix_product(seed: int) -> Case:
    """QLinearMatMul: weights or a second activation, per column or with a zero point."""
    draw = Draw(seed)
    rows, inner, columns = (draw.whole(1, 40) for _ in range(3))
    left, result = draw.grid("uint8"), draw.grid("uint8", scale=draw.scale() * 20)
    if draw.whole(0, 1):
        scales = np.array([draw.scale() for _ in range(columns)], np.float32)
        right = draw.grid("int8", scale=scales, zero_point=0)
    else:
        right = draw.grid(draw.name())
    a, b = draw.codes(left, rows, inner), draw.codes(right, inner, columns)
    constants = {"b": b, **numbers("a", left), **numbers("b", right), **numbers("y", result)}
    found = run_operator("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], {"a": a}, constants)
    return found, layers.matrix_product(a, b, None, (left, right, result))


def _of_two(op: str, reference: Callable[..., Array]) -> Callable[[int], Case]:
    def case(seed: int) -> Case:
        draw = Draw(seed)
        name = draw.name()
        grids = draw.grid(name), draw.grid(name), draw.grid(name)
        a, b = (draw.codes(grid, draw.whole(1, 5) * 64) for grid in grids[:2])
        size = min(len(a), len(b))
        a, b = a[:size], b[:size]
        constants = {**numbers("a", grids[0]), **numbers("b", grids[1]), **numbers("y", grids[2])}
        names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
        return run_operator(op, names, {"a": a, "b": b}, constants, domain=MICROSOFT), reference(a, b, grids)

    return case


def concatenation(seed: int) -> Case:
    """QLinearConcat: parts with grids of their own, now and then that of the result."""
    draw = Draw(seed)
    name = draw.name()
    result = draw.grid(name)
    grids = [result if draw.whole(0, 4) == 0 else draw.grid(name) for _ in range(2)]
    a, b = (draw.codes(grid, draw.whole(1, 4), 7) for grid in grids)
    constants = {**numbers("a", grids[0]), **numbers("b", grids[1]), **numbers("y", result)}
    names = ["ys", "yz", "a", "as", "az", "b", "bs", "bz"]
    found = run_operator("QLinearConcat", names, {"a": a, "b": b}, constants, domain=MICROSOFT, axis=0)
    return found, elementwise.concatenate([(a, grids[0]), (b, grids[1])], 0, result)


def average_pool(seed: int) -> Case:
    """QLinearAveragePool, with and without padding in the count."""
    draw = Draw(seed)
    name, window = draw.name(), draw.window()
    data, result = draw.grid(name), draw.grid(name)
    x = draw.codes(data, 1, draw.whole(1, 6), draw.whole(3, 12), draw.whole(3, 12))
    counted = bool(draw.whole(0, 1))
    (top, bottom), (left, right) = window.padding
    found = run_operator(
        "QLinearAveragePool",
        ["x", "xs", "xz", "ys", "yz"],
        {"x": x},
        {**numbers("x", data), **numbers("y", result)},
        domain=MICROSOFT,
        channels_last=0,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=[top, left, bottom, right],
        count_include_pad=int(counted),
    )
    return found, pools.average_pool(x, window, (data, result), count_padding=counted)


def global_average_pool(seed: int) -> Case:
    """QLinearGlobalAveragePool."""
    draw = Draw(seed)
    name = draw.name()
    data, result = draw.grid(name), draw.grid(name)
    x = draw.codes(data, 1, draw.whole(1, 9), draw.whole(1, 12), draw.whole(1, 12))
    if data.scale / result.scale >= _LARGEST_RATIO:
        result = draw.grid(name, scale=data.scale)
    constants = {**numbers("x", data), **numbers("y", result)}
    names = ["x", "xs", "xz", "ys", "yz"]
    found = run_operator("QLinearGlobalAveragePool", names, {"x": x}, constants, domain=MICROSOFT, channels_last=0)
    return found, pools.global_average_pool(x, (data, result))


def max_pool(seed: int) -> Case:
    """MaxPool on codes."""
    draw = Draw(seed)
    data, window = draw.grid(draw.name()), draw.window()
    x = draw.codes(data, 1, draw.whole(1, 6), draw.whole(3, 12), draw.whole(3, 12))
    (top, bottom), (left, right) = window.padding
    found = run_operator(
        "MaxPool",
        ["x"],
        {"x": x},
        {},
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=[top, left, bottom, right],
    )
    return found, pools.max_pool(x, window, data)


def sigmoid(seed: int) -> Case:
    """QLinearSigmoid, which looks codes up."""
    draw = Draw(seed)
    name = draw.name()
    data = draw.grid(name, scale=np.float32(10 ** draw.random.uniform(-2.5, -0.5)))
    low = FORMATS[name].code_min  # type: ignore[union-attr]
    result = draw.grid(name, scale=np.float32(draw.random.choice([1 / 256, 1 / 255, 0.0031])), zero_point=low)
    x = draw.codes(data, 300)
    constants = {**numbers("x", data), **numbers("y", result)}
    found = run_operator("QLinearSigmoid", ["x", "xs", "xz", "ys", "yz"], {"x": x}, constants, domain=MICROSOFT)
    entries = elementwise.table(lambda values: 1 / (1 + np.exp(-values)), data, result)
    return found, elementwise.look_up(x, entries, data)


OPERATORS: dict[str, Callable[[int], Case]] = {
    "QLinearConv": convolution,
    "QLinearMatMul": matrix_product,
    "QLinearAdd": _of_two("QLinearAdd", elementwise.add_mlas),
    "QLinearMul": _of_two("QLinearMul", elementwise.multiply_mlas),
    "QLinearConcat": concatenation,
    "QLinearAveragePool": average_pool,
    "QLinearGlobalAveragePool": global_average_pool,
    "MaxPool": max_pool,
    "QLinearSigmoid": sigmoid,
}
