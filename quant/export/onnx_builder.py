"""Writes a `Graph` as ONNX, keeping every tensor's identity as its value name.

ONNX Runtime's optimised files drop all metadata but keep the names of values, so a value is named by its `TensorRef`;
values that exist in ONNX only carry that name and a suffix behind `/`. Shapes are static, so every shape computation
is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, TensorKind, TensorRef

Array = npt.NDArray[Any]

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int16": TensorProto.INT16,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
_IR_VERSION = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}


def value_name(ref: TensorRef) -> str:
    """The name of a tensor in the file; inputs lose their `$`."""
    return str(ref).replace("$", "", 1) if ref.module_path.startswith("$") else str(ref)


class OnnxBuilder:
    """Collects nodes and initializers while translators walk a graph.

    Attributes:
        graph: what is written.
        opset: the version of the default operator set.
    """

    def __init__(self, graph: Graph, *, opset: int) -> None:
        if opset not in _IR_VERSION:
            raise InputError(f"opset = {opset}; allowed: {', '.join(map(str, _IR_VERSION))}")
        self.graph = graph
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._spares: dict[str, int] = {}

    # --- what translators call ---

    def read(self, ref: TensorRef, reader: Node) -> str:
        """The value that `reader` takes for a tensor; constants are written on first use."""
        name = value_name(ref)
        if self.graph.is_constant(ref) and name not in self.initializers:
            self.add_initializer(name, self.graph.array(ref))
        return name

    def operand(self, node: Node, position: int) -> str:
        """The value of an operand, by position in the operator's schema; "" when it is missing."""
        ref = node.inputs[position] if position < len(node.inputs) else None
        return self.read(ref, node) if ref is not None else ""

    def emit(self, op_type: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Appends one ONNX node and returns its (first) output's name."""
        outputs = [output] if isinstance(output, str) else list(output)
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=f"{outputs[0]}/{op_type}", **given))
        return outputs[0]

    def constant(self, owner: str, array: Array | np.generic | Sequence[int] | float, dtype: str | None = None) -> str:
        """An initializer that belongs to the value `owner`."""
        values = np.asarray(array, dtype=dtype or (np.int64 if isinstance(array, list | tuple) else None))
        return self.add_initializer(self.spare(owner), values)

    def spare(self, owner: str) -> str:
        """A fresh name for an inner value of `owner`."""
        self._spares[owner] = self._spares.get(owner, -1) + 1
        return f"{owner}/{self._spares[owner]}"

    def add_initializer(self, name: str, array: Array) -> str:
        """Writes an array; returns its name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def result(self, node: Node, index: int = 0) -> str:
        """The name that a node's result is to be written to."""
        return value_name(node.outputs[index])

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """The static shape of a tensor."""
        info = self.graph.tensors[ref]
        if None in info.shape:
            raise InputError(f"tensor {ref} has a dynamic shape {info.shape}; export needs static shapes")
        return tuple(d for d in info.shape if d is not None)

    # --- what a quantizing exporter overrides ---

    def write_product(self, node: Node) -> str | None:
        """Writes a linear layer without its bias, and returns its result's name; None where it is to be a Gemm."""
        return None

    def finish_input(self, ref: TensorRef) -> None:
        """Called after an input was declared."""

    def declare_input(self, ref: TensorRef) -> onnx.ValueInfoProto:
        """An argument of the file."""
        return self._declare(value_name(ref), ref)

    def finish_node(self, node: Node) -> None:
        """Called after a node was translated."""

    def output_name(self, ref: TensorRef) -> str:
        """The value that stands for a result of the graph."""
        return value_name(ref)

    # --- the whole ---

    def build(self, translators: dict[str, Callable[[OnnxBuilder, Node], None]]) -> onnx.ModelProto:
        """Translates every node.

        Raises:
            InputError: an operator has no translation; all of them are named with their source lines.
        """
        missing = {node.op: node for node in self.graph.nodes if node.op not in translators}
        if missing:
            lines = [f"  {op} ({node.source or node.module_path or 'no source line'})" for op, node in missing.items()]
            raise InputError("no ONNX translation for these operators:\n" + "\n".join(lines))
        self._check_names()
        incoming = [*self.graph.inputs, *(ref for ref, _ in self.graph.state)]
        for ref in incoming:
            self.finish_input(ref)
        for node in self.graph.nodes:
            translators[node.op](self, node)
            self.finish_node(node)
        outgoing = [ref for _, ref in self.graph.state] + list(self.graph.outputs)
        outputs = [self._declare(self._unique_output(ref, position), ref) for position, ref in enumerate(outgoing)]
        for ref, _ in self.graph.state:
            self._add_initial_state(ref)
        proto = helper.make_graph(
            self.nodes,
            "bitwright",
            [self.declare_input(ref) for ref in incoming],
            outputs,
            list(self.initializers.values()),
        )
        return helper.make_model(
            proto,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSION[self.opset],
            producer_name="bitwright",
        )

    def _check_names(self) -> None:
        """Inputs lose their `$`, so they alone can meet another tensor's name."""
        inputs = {value_name(ref): ref for ref in self.graph.inputs}
        for ref, info in self.graph.tensors.items():
            if inputs.get(value_name(ref), ref) != ref:
                raise InputError(
                    f"input {value_name(ref)!r} and {info.kind} {str(ref)!r} would have one name in the file; "
                    "rename one of them"
                )

    def _unique_output(self, ref: TensorRef, position: int) -> str:
        """Results that are inputs, constants or repeated need a value of their own."""
        name = self.output_name(ref)
        made = {out for node in self.nodes for out in node.output}
        outgoing = [r for _, r in self.graph.state] + list(self.graph.outputs)
        if name in made and ref not in outgoing[:position]:
            return name
        if self.graph.is_constant(ref) and name not in self.initializers:
            self.add_initializer(name, self.graph.array(ref))
        return self.emit("Identity", [name], f"{name}/out{position}")

    def _add_initial_state(self, ref: TensorRef) -> None:
        """The state at capture is the default value of the state's input."""
        if self.graph.load is not None:
            self.add_initializer(value_name(ref), np.asarray(self.graph.load(ref)))

    def _declare(self, name: str, ref: TensorRef) -> onnx.ValueInfoProto:
        info = self.graph.tensors[ref]
        if info.dtype not in ELEMENT_TYPES:
            raise InputError(f"tensor {ref} has type {info.dtype}, which ONNX export does not know")
        return helper.make_tensor_value_info(name, ELEMENT_TYPES[info.dtype], info.shape)


def is_state(graph: Graph, ref: TensorRef) -> bool:
    """Whether a tensor is a buffer that comes in and goes out."""
    return graph.tensors[ref].kind is TensorKind.STATE
