"""One layer with what stands around it in the file (codes, activation, other readers), and a model of it alone.

A `LayerCase` is read from the file, changed in one property, built into a minimal model and given to the runtime:
that is how the reason for a layer in float is found (`probe`) instead of looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bitwright.hw_constraints.proof.macs import weight_position
from bitwright.hw_constraints.proof.onnx_graph import DEQUANTIZE, QUANTIZE, Codes, OnnxGraph, elem_type_of

_LARGEST_SIDE = 64  # a probe asks which kernel is chosen, which the size of the picture does not decide
_SIZE_FREE = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Sub", "Mul", "Relu", "Clip"}
    | {"HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "Concat", "BatchNormalization"}
)
_BIAS_POSITION = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
_POOLED_RANK = 4
_ONE_BY_ONE = helper.make_attribute("kernel_shape", [1, 1])
_IR_VERSION = 10  # the first that knows every code type used here (ONNX 1.16)


class Role(StrEnum):
    """What an operand is to its layer."""

    DATA = "data"
    WEIGHT = "weight"
    BIAS = "bias"
    CONSTANT = "constant"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operand:
    """An input of a layer.

    Attributes:
        role: what it is.
        shape: its static shape.
        codes: how it is coded, None when it is real-valued.
        value: the values of a constant that matter (axes, bounds); weights are made up.
        stored_float: a quantized weight that stands in the file as real values before a QuantizeLinear.
        source: the operator type that makes it where it is real-valued; `the graph's input` or `a constant`.
    """

    role: Role
    shape: tuple[int, ...] = ()
    codes: Codes | None = None
    value: npt.NDArray[Any] | None = None
    stored_float: bool = False
    source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Follower:
    """An operator between the layer and its QuantizeLinear, with its constant operands; None stands for the data."""

    op: str
    domain: str
    attributes: tuple[AttributeProto, ...]
    operands: tuple[npt.NDArray[Any] | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCase:
    """A layer and its surroundings.

    Attributes:
        op: operator type.
        domain: of the operator.
        attributes: of the operator.
        opset: of the standard operators.
        operands: in the order of the operator's inputs.
        followers: operators up to the QuantizeLinear behind.
        output: the codes behind, None when the result stays real-valued.
        float_readers: operator types that read the result in float besides.
        is_graph_output: whether the result is one of the graph's, too.
        quantizers: how many QuantizeLinear read the result.
    """

    op: str
    domain: str = ""
    attributes: tuple[AttributeProto, ...] = ()
    opset: int
    operands: tuple[Operand, ...]
    followers: tuple[Follower, ...] = ()
    output: Codes | None = None
    float_readers: tuple[str, ...] = ()
    is_graph_output: bool = False
    quantizers: int = 1

    def operand(self, role: Role) -> Operand | None:
        """The first operand of a role."""
        return next((operand for operand in self.operands if operand.role is role), None)

    def with_operands(self, role: Role, **changes: Any) -> LayerCase:
        """The same case with every operand of a role changed."""
        changed = (replace(o, **changes) if o.role is role else o for o in self.operands)
        return replace(self, operands=tuple(changed))


def read_case(graph: OnnxGraph, index: int) -> LayerCase | None:
    """Reads a layer and its surroundings from the file; None when a shape around it is not known."""
    node = graph.nodes[index]
    operands = [_read_operand(graph, index, position) for position in range(len(node.input))]
    if any(operand is None for operand in operands):
        return None
    followers, value = _read_followers(graph, node.output[0])
    readers = [graph.nodes[reader] for reader in graph.readers.get(value, [])]
    quantizers = [reader for reader in readers if reader.op_type == QUANTIZE]
    output = graph.codes_of(quantizers[0]) if quantizers else None
    return LayerCase(
        op=node.op_type,
        domain=node.domain,
        attributes=tuple(node.attribute),
        opset=graph.opset,
        operands=tuple(operand for operand in operands if operand is not None),
        followers=followers,
        output=output,
        float_readers=tuple(reader.op_type for reader in readers if reader.op_type != QUANTIZE) if quantizers else (),
        is_graph_output=value in graph.outputs and bool(quantizers),
        quantizers=len(quantizers),
    )


def _read_operand(graph: OnnxGraph, index: int, position: int) -> Operand | None:
    node, value = graph.nodes[index], graph.nodes[index].input[position]
    if not value:
        return Operand(role=Role.ABSENT)
    maker, shape = graph.maker(value), graph.shape(value)
    live = value in graph.computed_from_inputs
    codes = graph.codes_before(value)
    if shape is None or None in shape[1:]:
        return None
    sizes = tuple(dim or 1 for dim in shape)
    if live:
        if node.op_type in _SIZE_FREE:
            sizes = (*sizes[:2], *(min(size, _LARGEST_SIDE) for size in sizes[2:]))
        source = maker.op_type if maker is not None else "the graph's input"
        return Operand(role=Role.DATA, shape=sizes, codes=codes, source=source)
    role = Role.CONSTANT
    if position == weight_position(node.op_type):
        role = Role.WEIGHT
    elif position == _BIAS_POSITION.get(node.op_type):
        role = Role.BIAS
    stored = graph.maker(maker.input[0]) if maker is not None and codes is not None else None
    return Operand(
        role=role,
        shape=sizes,
        codes=codes,
        value=graph.constant(value) if role is Role.CONSTANT else None,
        stored_float=stored is not None and stored.op_type == QUANTIZE,
        source="a constant",
    )


def _read_followers(graph: OnnxGraph, value: str) -> tuple[tuple[Follower, ...], str]:
    """Operators with one data operand and one reader each, up to a QuantizeLinear; none when there is no such."""
    start, followers = value, list[Follower]()
    while True:
        readers = [graph.nodes[reader] for reader in graph.readers.get(value, [])]
        if any(reader.op_type == QUANTIZE for reader in readers):
            return tuple(followers), value
        if len(readers) != 1 or value in graph.outputs or len(readers[0].output) != 1:
            return (), start
        reader = readers[0]
        operands = tuple(None if name == value else graph.constant(name) for name in reader.input)
        if sum(operand is None for operand in operands) != 1 or graph.shape(reader.output[0]) != graph.shape(value):
            return (), start
        followers.append(
            Follower(op=reader.op_type, domain=reader.domain, attributes=tuple(reader.attribute), operands=operands)
        )
        value = reader.output[0]


class CaseModel:
    """Builds the model of a case; `layer` is the position of its node."""

    def __init__(self, case: LayerCase) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._results: list[str] = []
        self._random = np.random.default_rng(0)
        self._has_weight = case.operand(Role.WEIGHT) is not None
        operands = [self._operand(operand) for operand in case.operands]
        self.layer = len(self._nodes)
        value = self._node(case.op, operands, case.attributes, case.domain)
        for follower in case.followers:
            inputs = [value if item is None else self._constant(item) for item in follower.operands]
            value = self._node(follower.op, inputs, follower.attributes, follower.domain)
        self._finish(case, value)
        graph = helper.make_graph(
            self._nodes,
            "case",
            self._inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._results],
            self._initializers,
        )
        domains = {case.domain, *(follower.domain for follower in case.followers)} - {"", "ai.onnx"}
        opsets = [helper.make_opsetid("", case.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        self.model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _finish(self, case: LayerCase, value: str) -> None:
        if case.is_graph_output or case.output is None:
            self._results.append(value)
        for _ in case.float_readers[:1]:
            self._results.append(self._node("Neg", [value]))
        if case.output is not None:
            for _ in range(max(1, case.quantizers)):
                self._results.append(self._quantized(value, case.output))

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self._nodes)}_{len(self._initializers)}"

    def _node(self, op: str, inputs: Sequence[str], attributes: Sequence[AttributeProto] = (), domain: str = "") -> str:
        output = self._name(op)
        node = helper.make_node(op, inputs, [output], name=output, domain=domain)
        node.attribute.extend(attributes)
        self._nodes.append(node)
        return output

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = self._name("constant")
        self._initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _coded(self, dtype: str, values: npt.NDArray[Any]) -> str:
        """A constant of any code type; NumPy has no 4-bit integers and no 8-bit floats."""
        name = self._name("codes")
        tensor = helper.make_tensor(name, elem_type_of(dtype), values.shape, values.flatten().tolist())
        self._initializers.append(tensor)
        return name

    def _qparams(self, codes: Codes) -> tuple[list[str], list[AttributeProto]]:
        axis = [] if codes.axis is None else [helper.make_attribute("axis", codes.axis)]
        return [self._constant(codes.scale), self._coded(codes.dtype, codes.zero_point)], axis

    def _quantized(self, value: str, codes: Codes) -> str:
        qparams, axis = self._qparams(codes)
        coded = self._node(QUANTIZE, [value, *qparams], axis)
        result = self._node(DEQUANTIZE, [coded, *qparams], axis)
        if codes.readers > 1:
            self._results.append(self._node("Neg", [result]))
        return result

    def _operand(self, operand: Operand) -> str:
        if operand.role is Role.ABSENT:
            return ""
        if operand.role is Role.DATA:
            name = self._name("input")
            name = f"{name}_{len(self._inputs)}"
            self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, operand.shape))
            if operand.codes is None:
                return name
            if len(operand.shape) == _POOLED_RANK and not self._has_weight:
                # The runtime may merge quantizing the input with an elementwise layer: it has to come in as codes.
                pool = self._node("MaxPool", [self._quantized(name, operand.codes)], [_ONE_BY_ONE])
                return self._quantized(pool, operand.codes)
            return self._quantized(name, operand.codes)
        if operand.value is not None:
            return self._constant(operand.value)
        real = self._random.uniform(-1, 1, operand.shape).astype(np.float32)
        if operand.codes is None:
            return self._constant(real)
        qparams, axis = self._qparams(operand.codes)
        if operand.stored_float:
            coded = self._node(QUANTIZE, [self._constant(real), *qparams], axis)
        else:
            lowest = 0 if operand.codes.dtype.startswith("u") else -7
            coded = self._coded(operand.codes.dtype, self._random.integers(lowest, 8, operand.shape))
        return self._node(DEQUANTIZE, [coded, *qparams], axis)
