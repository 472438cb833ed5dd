"""Writes an int8 network, described in JSON and NumPy arrays, as a TensorFlow Lite file.

Runs with Vela's interpreter and uses the flatbuffer schema that Vela brings along (`ethosu.vela.tflite`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

SCHEMA = "ethosu.vela.tflite"
VERSION = 3
IDENTIFIER = b"TFL3"
PADDING = {"SAME": 0, "VALID": 1}
ACTIVATION = {"": 0, "relu": 1, "relu6": 3}

# Which options table each operator carries; its fields are the keys of the description's `options`.
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "CONCATENATION": "ConcatenationOptions",
    "RESHAPE": "ReshapeOptions",
    "TRANSPOSE": "TransposeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "HARD_SWISH": "HardSwishOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "PAD": "PadOptions",
    "SPLIT": "SplitOptions",
    "GELU": "GeluOptions",
    "ELU": None,
    "TANH": None,
    "LOGISTIC": None,
    "RELU": None,
    "RELU6": None,
}


def write_tflite(network: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], file: Path) -> None:
    """Writes the file.

    Args:
        network: `tensors` (name, shape, type, scale, zero_point, axis, data), `operators` (op, inputs, outputs,
            options), `inputs` and `outputs`; tensors are named by their positions, `data` is a key of `arrays`.
        arrays: the constants.
        file: where to.
    """
    builder = flatbuffers.Builder(1 << 20)
    buffers = [_buffer(builder, None)]
    tensors = []
    for tensor in network["tensors"]:
        position = 0
        if tensor["data"] is not None:
            position = len(buffers)
            buffers.append(_buffer(builder, arrays[tensor["data"]]))
        tensors.append(_tensor(builder, tensor, position))
    names = sorted({operator["op"] for operator in network["operators"]})
    operators = [_operator(builder, operator, names.index(operator["op"])) for operator in network["operators"]]
    codes = [_operator_code(builder, name) for name in names]
    graph = _table(
        builder,
        "SubGraph",
        tensors=_offsets(builder, tensors),
        inputs=_integers(builder, network["inputs"]),
        outputs=_integers(builder, network["outputs"]),
        operators=_offsets(builder, operators),
    )
    model = _table(
        builder,
        "Model",
        version=VERSION,
        operator_codes=_offsets(builder, codes),
        subgraphs=_offsets(builder, [graph]),
        buffers=_offsets(builder, buffers),
    )
    builder.Finish(model, IDENTIFIER)
    file.write_bytes(bytes(builder.Output()))


def _table(builder: Any, table: str, /, **fields: Any) -> int:
    """Builds one table; fields are spelt as in the schema (`stride_w` → `AddStrideW`)."""
    module = importlib.import_module(f"{SCHEMA}.{table}")
    module.Start(builder)
    for key, value in fields.items():
        getattr(module, "Add" + "".join(part.capitalize() for part in key.split("_")))(builder, value)
    return int(module.End(builder))


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _integers(builder: Any, values: Sequence[int]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype=np.int32)))


def _buffer(builder: Any, array: npt.NDArray[Any] | None) -> int:
    if array is None:
        return _table(builder, "Buffer")
    raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), dtype=np.uint8)
    builder.StartVector(1, len(raw), 16)  # the format asks for 16-byte alignment of constants
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw.tobytes()
    return _table(builder, "Buffer", data=int(builder.EndVector()))


def _tensor(builder: Any, tensor: Mapping[str, Any], position: int) -> int:
    types = importlib.import_module(f"{SCHEMA}.TensorType").TensorType
    name = builder.CreateString(tensor["name"])
    shape = _integers(builder, tensor["shape"])
    quantization = None
    if tensor["scale"]:
        scale = builder.CreateNumpyVector(np.asarray(tensor["scale"], dtype=np.float32))
        zero = builder.CreateNumpyVector(np.asarray(tensor["zero_point"], dtype=np.int64))
        quantization = _table(
            builder, "QuantizationParameters", scale=scale, zero_point=zero, quantized_dimension=tensor["axis"]
        )
    fields: dict[str, Any] = {
        "shape": shape,
        "type": getattr(types, tensor["type"].upper()),
        "buffer": position,
        "name": name,
    }
    if quantization is not None:
        fields["quantization"] = quantization
    return _table(builder, "Tensor", **fields)


def _operator(builder: Any, operator: Mapping[str, Any], code: int) -> int:
    kind = OPTIONS[operator["op"]]
    fields: dict[str, Any] = {
        "opcode_index": code,
        "inputs": _integers(builder, operator["inputs"]),
        "outputs": _integers(builder, operator["outputs"]),
    }
    if kind is not None:
        options = {key: _option(builder, key, value) for key, value in operator["options"].items()}
        types = importlib.import_module(f"{SCHEMA}.BuiltinOptions").BuiltinOptions
        fields["builtin_options"] = _table(builder, kind, **options)
        fields["builtin_options_type"] = getattr(types, kind)
    return _table(builder, "Operator", **fields)


def _option(builder: Any, key: str, value: Any) -> Any:
    if key == "padding":
        return PADDING[value]
    if key == "fused_activation_function":
        return ACTIVATION[value]
    return _integers(builder, value) if isinstance(value, list) else value


def _operator_code(builder: Any, name: str) -> int:
    codes = importlib.import_module(f"{SCHEMA}.BuiltinOperator").BuiltinOperator
    code = getattr(codes, name)
    return _table(builder, "OperatorCode", deprecated_builtin_code=min(code, 127), version=1, builtin_code=code)
