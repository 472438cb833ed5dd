"""An ONNX file as a graph that can be asked: who makes a value, who reads it, its shape, its codes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from bitwright.hw_constraints.backends.artifacts import artifact_kind
from bitwright.quant.errors import InputError

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"

# ONNX Runtime's own integer operators (domain com.microsoft) and the standard operator with the same shapes: the
# operands to keep, by position. Shape inference stops at operators that it does not know.
_STANDARD_TWINS: dict[str, tuple[str, tuple[int, ...]]] = {
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "FusedConv": ("Conv", (0, 1)),
}
LARGEST_MODEL_BYTES = 2**31 - 2**20  # protobuf's limit for a message, with room for the graph itself
LARGEST_INPUT_BYTES = 2**32  # of one made-up input, as it is drawn: two of them fit a machine of 8 GiB
_LARGEST_SHAPE_TENSOR = 64  # elements: target shapes, pads and axes are far smaller, weights far larger
_TWIN_ATTRIBUTES_DROPPED = {"channels_last", "activation", "activation_params", "opset"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """How a tensor is coded between a QuantizeLinear and a DequantizeLinear, or only before the latter.

    Attributes:
        dtype: the type of the codes: `uint8`, `int8`, `int4`, `float8_e4m3fn`, …
        scale: float32, scalar, or [channels].
        zero_point: of `dtype`'s values, same shape as the scale.
        axis: the channel axis; None for one scale for the whole tensor.
        readers: how many operators read the codes, through DequantizeLinear.
    """

    dtype: str
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    axis: int | None
    readers: int = 1

    @property
    def is_float8(self) -> bool:
        """Whether the codes are 8-bit floats."""
        return self.dtype.startswith("float8")


class OnnxGraph:
    """The main graph of an ONNX model. Nodes are known by their position."""

    def __init__(self, model: onnx.ModelProto, label: str) -> None:
        self.model = model
        self.label = label
        self.nodes: tuple[NodeProto, ...] = tuple(model.graph.node)
        self.producer = {value: index for index, node in enumerate(self.nodes) for value in node.output if value}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for value in dict.fromkeys(filter(None, node.input)):
                self.readers.setdefault(value, []).append(index)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [item for item in model.graph.input if item.name not in self.initializers]
        self.outputs = {item.name for item in model.graph.output}

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 1)

    @cached_property
    def _types(self) -> dict[str, Any]:
        """Element type and shape of each value, by ONNX's own inference."""
        graph = _with_standard_twins(self.model)
        with suppress(Exception):  # a value without a shape is reported as such where it is needed
            graph = shape_inference.infer_shapes(graph, data_prop=True)
        values = [*graph.graph.value_info, *graph.graph.input, *graph.graph.output]
        return {item.name: item.type.tensor_type for item in values if item.type.HasField("tensor_type")}

    def shape(self, value: str) -> tuple[int | None, ...] | None:
        """Its dimensions, None for one that is not static; None when nothing is known."""
        if value in self.initializers:
            return tuple(self.initializers[value].dims)
        if value not in self._types or not self._types[value].HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in self._types[value].shape.dim)

    def dtype(self, value: str) -> str:
        """Its element type in NumPy's spelling; empty when nothing is known."""
        if value in self.initializers:
            return _dtype_name(self.initializers[value].data_type)
        return _dtype_name(self._types[value].elem_type) if value in self._types else ""

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers and results of Constant nodes."""
        made = {
            node.output[0]: attribute.t
            for node in self.nodes
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        return {**self.initializers, **made}

    def constant(self, value: str) -> npt.NDArray[Any] | None:
        """Its values when they stand in the file."""
        return numpy_helper.to_array(self.constants[value]) if value in self.constants else None

    @cached_property
    def computed_from_inputs(self) -> frozenset[str]:
        """Values that depend on the graph's inputs."""
        live = {item.name for item in self.inputs}
        for node in self.nodes:
            # A node with a body (If, Loop) may read outer values that its inputs do not list.
            has_body = any(attribute.HasField("g") for attribute in node.attribute)
            if has_body or any(value in live for value in node.input):
                live.update(node.output)
        return frozenset(live)

    def maker(self, value: str) -> NodeProto | None:
        """The node that makes a value."""
        return self.nodes[self.producer[value]] if value in self.producer else None

    def codes_before(self, value: str) -> Codes | None:
        """The codes that a value was dequantized from, when a DequantizeLinear makes it."""
        node = self.maker(value)
        return self.codes_of(node) if node is not None and node.op_type == DEQUANTIZE else None

    def codes_of(self, node: NodeProto) -> Codes | None:
        """Scale, zero point and code type of a QuantizeLinear or DequantizeLinear; None when not constant."""
        scale = self.constant(node.input[1])
        if scale is None:
            return None
        coded = node.input[0] if node.op_type == DEQUANTIZE else node.output[0]
        named = node.input[2] if len(node.input) > 2 else ""
        zero_point = self.constant(named) if named else None
        dtype = self.dtype(named) if named else self.dtype(coded) or "uint8"
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        code_readers = [self.nodes[index] for index in self.readers.get(coded, ())]
        dequantized = [reader.output[0] for reader in code_readers if reader.op_type == DEQUANTIZE]
        return Codes(
            dtype=dtype,
            scale=np.asarray(scale, np.float32),
            zero_point=np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.astype(np.int32),
            axis=axis if scale.ndim and scale.size > 1 else None,
            readers=sum(len(self.readers.get(value, ())) for value in dequantized),
        )


def read_onnx(path: Path) -> OnnxGraph:
    """Reads an ONNX file with its external data.

    Raises:
        InputError: there is no such file, it is no ONNX model, or it is larger than protobuf can copy.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder; name an ONNX file' if path.is_dir() else 'no such file'}")
    try:
        model = onnx.load(str(path))
    except Exception as error:
        kind = artifact_kind(path)
        if kind is not None and kind.name != "onnx":
            raise InputError(f"{path}: is {kind.title}; layers are read from ONNX models only") from error
        raise InputError(f"{path}: not a readable ONNX model: {error}") from error
    if not model.graph.node:
        raise InputError(f"{path}: not a readable ONNX model: it has no operators")
    weight_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weight_bytes > LARGEST_MODEL_BYTES:
        raise InputError(f"{path}: {weight_bytes / 2**30:.1f} GiB of weights; models above 2 GiB cannot be traced")
    return OnnxGraph(model, str(path))


def random_inputs(graph: OnnxGraph, *, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """One batch of standard normal inputs; a first dimension that is not static becomes 1.

    Raises:
        InputError: another dimension is not static, an input is not floating point, or its size cannot be had.
    """
    generator = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for item in graph.inputs:
        dims = graph.shape(item.name)
        dtype = graph.dtype(item.name)
        if dims is None or None in dims[1:]:
            raise InputError(f"{graph.label}: input {item.name!r} has shape {dims}: give inputs of the size you use")
        if not dtype.startswith("float"):
            raise InputError(f"{graph.label}: input {item.name!r} is {dtype}: give inputs with meaningful values")
        sizes = [dim or 1 for dim in dims]
        drawn_bytes = math.prod(sizes) * np.dtype(np.float64).itemsize
        if min(sizes, default=1) < 0 or drawn_bytes > LARGEST_INPUT_BYTES:
            raise InputError(
                f"{graph.label}: input {item.name!r} has shape {dims}; "
                f"dimensions must be 0 or more, and {LARGEST_INPUT_BYTES // 2**30} GiB of float64 must hold it"
            )
        arrays[item.name] = generator.standard_normal(sizes).astype(dtype)
    return arrays


def _dtype_name(elem_type: int) -> str:
    names = {
        TensorProto.FLOAT: "float32",
        TensorProto.DOUBLE: "float64",
        TensorProto.FLOAT16: "float16",
        TensorProto.BFLOAT16: "bfloat16",
        TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
        TensorProto.FLOAT8E5M2: "float8_e5m2",
        TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
        TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
        TensorProto.UNDEFINED: "",
    }
    return names.get(elem_type) or TensorProto.DataType.Name(elem_type).lower()


def elem_type_of(dtype: str) -> int:
    """ONNX's number of an element type that is spelt as `_dtype_name` does."""
    spelt = {_dtype_name(number): number for number in TensorProto.DataType.values() if number}
    return int(spelt[dtype])


def _with_standard_twins(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model for shape inference: operators it knows, and the weights' shapes without their values."""
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(map(_twin, model.graph.node))
    for field in ("input", "output", "value_info"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        small = math.prod(tensor.dims) <= _LARGEST_SHAPE_TENSOR
        bare.graph.initializer.append(
            tensor if small else TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        )
    return bare


def _twin(node: NodeProto) -> NodeProto:
    if node.op_type not in _STANDARD_TWINS or node.domain in ("", "ai.onnx"):
        return node
    op, positions = _STANDARD_TWINS[node.op_type]
    kept: Iterable[str] = [node.input[position] for position in positions]
    twin = helper.make_node(op, list(kept), list(node.output)[:1])
    twin.attribute.extend(a for a in node.attribute if a.name not in _TWIN_ATTRIBUTES_DROPPED)
    return twin
