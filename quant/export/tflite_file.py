"""A `.tflite` file, call by call: tensors, operators, and the flatbuffer that they make.

The tables are those of TensorFlow Lite's schema (`schema.fbs`), whose generated classes come with LiteRT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.errors import MissingExtraError

Array = npt.NDArray[Any]

VERSION = 3  # of the format
IDENTIFIER = b"TFL3"
_TYPES = {
    "float32": "FLOAT32",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
# The first version of each operator that takes int8 (of the first three: with a scale for each channel); the others
# do so from their first on. TensorFlow Lite, tools/versioning/op_version.cc.
_VERSIONS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), 3),
    "FULLY_CONNECTED": 4,
    **dict.fromkeys(
        (
            *("ADD", "SUB", "MUL", "AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION", "PAD", "PADV2", "TRANSPOSE"),
            *("SOFTMAX", "LOGISTIC", "TANH", "MEAN", "SUM", "STRIDED_SLICE", "RESIZE_BILINEAR", "GATHER", "MINIMUM"),
            *("RESIZE_NEAREST_NEIGHBOR", "MAXIMUM", "LEAKY_RELU", "BATCH_MATMUL", "RELU", "RELU6", "LOG_SOFTMAX"),
            *("DEQUANTIZE", "GELU", "TILE"),
        ),
        2,
    ),
    "BROADCAST_TO": 3,
}


def schema() -> Any:
    """The classes of the schema.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingExtraError("writing .tflite files", "litert") from None
    return schema_py_generated


class TfliteFile:
    """Tensors and operators under construction."""

    def __init__(self) -> None:
        self._schema = schema()
        self._buffers = [self._schema.BufferT()]
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
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), [max(size, 1) for size in shape], 0
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        tensor.type = getattr(self._schema.TensorType, _TYPES[dtype])
        if data is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if scale is not None:
            quantization = self._schema.QuantizationParametersT()
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
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(op, fields.pop("custom_code", None))
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options:
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self._schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self._operators.append(operator)

    def _code(self, op: str, custom: str | None) -> int:
        """The index of an operator type; each stands in the file once."""
        number = getattr(self._schema.BuiltinOperator, op)
        for index, known in enumerate(self._codes):
            if known.builtinCode == number and known.customCode == custom:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.customCode, code.version = number, custom, _VERSIONS.get(op, 1)
        code.deprecatedBuiltinCode = min(number, 127)
        self._codes.append(code)
        return len(self._codes) - 1

    def name_of(self, index: int) -> str:
        """The name of a tensor."""
        return str(self._tensors[index].name.decode())

    def shape_of(self, index: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[index].shape)

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        import flatbuffers

        graph = self._schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = self._schema.ModelT()
        model.version, model.subgraphs, model.buffers = VERSION, [graph], self._buffers
        model.operatorCodes = self._codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())
