"""Writes small `.tflite` files, by the schema that LiteRT's package brings: for tests and rows about LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]

VERSION = 3  # of the format
_CODES = {"float32": "FLOAT32", "int8": "INT8", "int32": "INT32"}
_LATEST = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}  # versions with int8 and per-channel scales


class TfliteWriter:
    """Tensors and operators, call by call."""

    def __init__(self) -> None:
        self._buffers = [schema.BufferT()]
        self._tensors: list[Any] = []
        self._codes: list[Any] = []
        self._operators: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        data: npt.ArrayLike | None = None,
        scale: npt.ArrayLike | None = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        """Adds a tensor, a constant with `data`; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), [max(size, 1) for size in shape], 0
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        tensor.type = getattr(schema.TensorType, _CODES[dtype])
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = [float(value) for value in np.atleast_1d(scale)]
            quantization.zeroPoint = [int(zero_point)] * len(quantization.scale)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def operator(
        self, op: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **fields: Any
    ) -> None:
        """Adds an operator; `options` is the name of its table, `fields` are that table's."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), _LATEST.get(op, 1)
        if op == "CUSTOM":
            code.customCode = fields.pop("custom_code")
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self._codes), inputs, outputs
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self._codes.append(code)
        self._operators.append(operator)

    def conv(
        self, source: int, name: str, weight: Array, bias: Array, *, size: Sequence[int], relu: bool = True
    ) -> int:
        """Adds a convolution, stride 1, SAME; `weight` is ONNX's [out, in, height, width]."""
        data = np.asarray(weight).transpose(0, 2, 3, 1)
        filters = self.tensor(f"{name}.weight", data.shape, data=data)
        offsets = self.tensor(f"{name}.bias", bias.shape, data=bias)
        result = self.tensor(name, (*size, len(bias)))
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        activation = schema.ActivationFunctionType.RELU if relu else schema.ActivationFunctionType.NONE
        options |= {"padding": schema.Padding.SAME, "fusedActivationFunction": activation}
        self.operator("CONV_2D", [source, filters, offsets], [result], "Conv2DOptions", **options)
        return result

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self._tensors, self._operators, inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = VERSION, [graph], self._buffers
        model.operatorCodes = self._codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def reference_tflite(weights: dict[str, Array]) -> bytes:
    """The network of the backends' contract: two convolutions, a spatial mean, a linear layer."""
    writer = TfliteWriter()
    image = writer.tensor("image", (1, 40, 40, 16))
    value = image
    for layer in ("first", "second"):
        bias = weights[f"{layer}.bias"]
        value = writer.conv(value, layer, weights[f"{layer}.weight"], bias, size=(1, 40, 40))
    axes = writer.tensor("axes", (2,), "int32", data=[1, 2])
    mean = writer.tensor("mean", (1, 64))
    writer.operator("MEAN", [value, axes], [mean], "ReducerOptions")
    head = [writer.tensor(name, weights[name].shape, data=weights[name]) for name in ("head.weight", "head.bias")]
    output = writer.tensor("output", (1, 10))
    writer.operator("FULLY_CONNECTED", [mean, *head], [output], "FullyConnectedOptions")
    return writer.content([image], [output])
