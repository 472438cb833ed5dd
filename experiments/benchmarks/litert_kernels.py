"""One int8 operator at a time in LiteRT's reference kernels, on random cases, beside the integer reference.

These kernels are TFLite's definition of int8 arithmetic: gemmlowp's two roundings, whole multipliers, and tables.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from bitwright.experiments.benchmarks.ort_kernels import Case, Draw
from bitwright.experiments.benchmarks.tflite_writer import TfliteWriter
from bitwright.quant.integer import elementwise, layers, pools
from bitwright.quant.integer.codes import Array, Grid
from bitwright.quant.integer.requantize import Rounding

ROUNDING = Rounding.DOUBLE_ROUNDING
_TO_NHWC = (0, 2, 3, 1)


class _OneOperator:
    """A file of one operator."""

    def __init__(self) -> None:
        self.writer = TfliteWriter()
        self.inputs: list[int] = []
        self.values: list[Array] = []

    def takes(self, values: Array, grid: Grid) -> int:
        """An argument."""
        index = self.writer.tensor(f"x{len(self.inputs)}", values.shape, "int8", **_numbers(grid))
        self.inputs.append(index)
        self.values.append(values)
        return index

    def run(
        self, op: str, inputs: Sequence[int], shape: Sequence[int], grid: Grid, options: str = "", **more: Any
    ) -> Array:
        """The operator's result, in LiteRT's layout."""
        output = self.writer.tensor("y", shape, "int8", **_numbers(grid))
        self.writer.operator(op, list(inputs), [output], options, **more)
        content = self.writer.content(self.inputs, [output])
        interpreter = Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        for details, values in zip(interpreter.get_input_details(), self.values, strict=True):
            interpreter.set_tensor(details["index"], values)
        interpreter.invoke()
        result: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return result


def _numbers(grid: Grid) -> dict[str, Any]:
    return {"scale": grid.scale, "zero_point": grid.zero_point}


def convolution(seed: int) -> Case:
    """CONV_2D with a scale for each output channel."""
    draw, file = Draw(seed), _OneOperator()
    window = draw.window(padded=False)
    inner, outer = draw.whole(1, 8), draw.whole(1, 8)
    data, result = draw.grid("int8"), draw.grid("int8", scale=draw.scale() * 20)
    scales = np.array([draw.scale() for _ in range(outer)], np.float32)
    weights = Grid(format=data.format, scale=scales, narrow_range=True)
    x = draw.codes(data, 1, inner, draw.whole(3, 9), draw.whole(3, 9))
    w = draw.codes(weights, outer, inner, *window.kernel)
    bias = draw.random.integers(-5000, 5000, outer).astype(np.int32)
    inputs = [
        file.takes(x.transpose(_TO_NHWC), data),
        file.writer.tensor("w", (outer, *window.kernel, inner), "int8", data=w.transpose(_TO_NHWC), scale=scales),
        file.writer.tensor("b", (outer,), "int32", data=bias, scale=data.scale * scales),
    ]
    found = file.run(
        "CONV_2D",
        inputs,
        (1, *window.results(x.shape[2:]), outer),
        result,
        "Conv2DOptions",
        strideH=window.stride[0],
        strideW=window.stride[1],
        dilationHFactor=1,
        dilationWFactor=1,
        padding=schema.Padding.VALID,
    )
    expected = layers.convolution(x, w, bias, (data, weights, result), window, rounding=ROUNDING)
    return found, expected.transpose(_TO_NHWC)


def linear(seed: int) -> Case:
    """FULLY_CONNECTED, whose reference kernel rounds once."""
    draw, file = Draw(seed), _OneOperator()
    rows, inner, outer = draw.whole(1, 5), draw.whole(1, 40), draw.whole(1, 20)
    data, result = draw.grid("int8"), draw.grid("int8", scale=draw.scale() * 20)
    weights = Grid(format=data.format, scale=draw.scale(), narrow_range=True)
    x, w = draw.codes(data, rows, inner), draw.codes(weights, outer, inner)
    bias = draw.random.integers(-5000, 5000, outer).astype(np.int32)
    inputs = [
        file.takes(x, data),
        file.writer.tensor("w", w.shape, "int8", data=w, scale=weights.scale),
        file.writer.tensor("b", (outer,), "int32", data=bias, scale=data.scale * weights.scale),
    ]
    found = file.run("FULLY_CONNECTED", inputs, (rows, outer), result, "FullyConnectedOptions")
    grids = data, weights, result
    return found, layers.matrix_product(x, w.T, bias, grids, rounding=Rounding.SINGLE_ROUNDING)


def _of_two(
    op: str, options: str, reference: Callable[[Array, Array, elementwise.Grids], Array]
) -> Callable[[int], Case]:
    def case(seed: int) -> Case:
        draw, file = Draw(seed), _OneOperator()
        grids = draw.grid("int8"), draw.grid("int8"), draw.grid("int8")
        size = draw.whole(1, 256)
        a, b = draw.codes(grids[0], 1, size), draw.codes(grids[1], 1, size)
        inputs = [file.takes(a, grids[0]), file.takes(b, grids[1])]
        return file.run(op, inputs, (1, size), grids[2], options), reference(a, b, grids)

    return case


def _multiplied(left: Array, right: Array, grids: elementwise.Grids) -> Array:
    return elementwise.multiply(left, right, grids, ROUNDING)


def average_pool(seed: int) -> Case:
    """AVERAGE_POOL_2D, which keeps scale and zero point."""
    draw, file = Draw(seed), _OneOperator()
    window, grid = draw.window(padded=False), draw.grid("int8")
    x = draw.codes(grid, 1, draw.whole(1, 5), draw.whole(3, 9), draw.whole(3, 9))
    found = file.run(
        "AVERAGE_POOL_2D",
        [file.takes(x.transpose(_TO_NHWC), grid)],
        (1, *window.results(x.shape[2:]), x.shape[1]),
        grid,
        "Pool2DOptions",
        strideH=window.stride[0],
        strideW=window.stride[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
        padding=schema.Padding.VALID,
    )
    return found, pools.average_pool(x, window, (grid, grid), rounding=ROUNDING).transpose(_TO_NHWC)


def concatenation(seed: int) -> Case:
    """CONCATENATION, whose parts have the result's grid."""
    draw, file = Draw(seed), _OneOperator()
    grid = draw.grid("int8")
    a, b = draw.codes(grid, 3, 4), draw.codes(grid, 2, 4)
    inputs = [file.takes(a, grid), file.takes(b, grid)]
    found = file.run("CONCATENATION", inputs, (5, 4), grid, "ConcatenationOptions", axis=0)
    return found, elementwise.concatenate([(a, grid), (b, grid)], 0, grid)


def _table(op: str, function: Callable[[Array], Array], scale: float, zero_point: int) -> Callable[[int], Case]:
    def case(seed: int) -> Case:
        draw, file = Draw(seed), _OneOperator()
        data = draw.grid("int8", scale=np.float32(10 ** draw.random.uniform(-2.5, -0.5)))
        result = draw.grid("int8", scale=np.float32(scale), zero_point=zero_point)
        x = draw.codes(data, 1, 300)
        found = file.run(op, [file.takes(x, data)], x.shape, result)
        return found, elementwise.look_up(x, elementwise.table_tflite(function, data, result), data)

    return case


def _sigmoid(values: Array) -> Array:
    """In float32 but for `exp`, of which the C library's is the nearest float32."""
    exponential = np.exp(-values.astype(np.float64)).astype(np.float32)
    sigmoid: Array = np.float32(1) / (np.float32(1) + exponential)
    return sigmoid


def _tanh(values: Array) -> Array:
    """The C library's, whose last bit is its own."""
    tanhf = ctypes.CDLL(ctypes.util.find_library("m")).tanhf
    tanhf.restype, tanhf.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.array([tanhf(float(value)) for value in values], np.float32)


OPERATORS: dict[str, Callable[[int], Case]] = {
    "CONV_2D": convolution,
    "FULLY_CONNECTED": linear,
    "ADD": _of_two("ADD", "AddOptions", elementwise.add_tflite),
    "MUL": _of_two("MUL", "MulOptions", _multiplied),
    "AVERAGE_POOL_2D": average_pool,
    "CONCATENATION": concatenation,
    # Their results' grids are fixed by the format's specification.
    "LOGISTIC": _table("LOGISTIC", _sigmoid, 1 / 256, -128),
    "TANH": _table("TANH", _tanh, 1 / 128, 0),
}
