"""A program that torchao's `convert_pt2e` has left, as one of our quantized networks: the same codes, scales, layers.

Such a program computes in float between `quantize_*` and `dequantize_*` operators of the library
`quantized_decomposed`; weights are stored as codes behind a `dequantize_*`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx

from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import BiasPlan, QuantPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme
from bitwright.quant.torchao.program import Program, read_program

_CLAMPS = ("relu", "hardtanh", "relu6")
_SUMS = ("add",)
_LEFT = "torchao left it in float"


def import_converted(module: torch.fx.GraphModule) -> QuantizedModel:
    """Reads a program of `convert_pt2e`.

    Raises:
        InputError: nothing is quantized in it, or with codes that no format of ours has.
    """
    plain = _without_codes(module)
    program = read_program(plain.module)
    refs = {node: ref for ref, node in program.nodes.items()}
    found = {refs[node]: each for node, each in plain.qparams.items() if node in refs}
    if not found:
        raise InputError("the program has no quantize_per_tensor; convert it with convert_pt2e first")
    decided = _plan_of(program, found)
    biases = {bias.bias for bias in decided.biases.values()}
    qparams = {ref: each for ref, each in found.items() if ref not in biases}
    return QuantizedModel(captured=program.captured, plan=decided, qparams=qparams)


@dataclass(kw_only=True)
class _Plain:
    """The program in float, and the qparams of what is in codes."""

    module: torch.fx.GraphModule
    qparams: dict[torch.fx.Node, QParams] = field(default_factory=dict)


def _without_codes(module: torch.fx.GraphModule) -> _Plain:
    """The same program without its conversions; weights are the values of their codes."""
    graph = torch.fx.Graph()
    root: dict[str, Any] = {}
    made: dict[torch.fx.Node, torch.fx.Node] = {}
    qparams: dict[torch.fx.Node, QParams] = {}
    for node in module.graph.nodes:
        kind = _kind(node)
        if kind == "quantize":
            made[node] = made[node.args[0]]
            qparams[made[node]] = _qparams(module, node)
        elif kind == "dequantize" and node.args[0].op == "get_attr":
            path, stored = str(node.args[0].target), _tensor(module, node.args[0])
            own = _qparams(module, node)
            root[path] = _real(stored, own)
            made[node] = graph.get_attr(path)
            qparams[made[node]] = own
        elif kind == "dequantize":
            made[node] = made[node.args[0]]
        elif node.op == "get_attr":
            root[str(node.target)] = _tensor(module, node)
            made[node] = graph.get_attr(str(node.target))
        elif node.op != "call_module":
            made[node] = graph.node_copy(node, made.__getitem__)
            made[node].meta = dict(node.meta)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)  # the scales of channels
    graph._codegen = module.graph._codegen
    return _Plain(module=torch.fx.GraphModule(root, graph), qparams=qparams)


def _kind(node: torch.fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    name = schema.name if schema is not None else ""
    if not name.startswith("quantized_decomposed::"):
        return ""
    return "dequantize" if "::dequantize" in name else "quantize" if "::quantize" in name else ""


def _tensor(module: torch.fx.GraphModule, node: Any) -> torch.Tensor:
    value = operator.attrgetter(str(node.target))(module)
    assert isinstance(value, torch.Tensor)
    return value.detach()


def _qparams(module: torch.fx.GraphModule, node: torch.fx.Node) -> QParams:
    """`(x, scale, zero_point, [axis,] quant_min, quant_max, dtype)`, numbers or tensors of the module."""
    read = [
        _tensor(module, part) if isinstance(part, torch.fx.Node) and i else part for i, part in enumerate(node.args)
    ]
    scale, zero_point = (torch.as_tensor(part, dtype=torch.float32) for part in read[1:3])
    in_channels = "per_channel" in str(node.target)
    axis: Any = read[3] if in_channels else None
    low, high, dtype = read[4:7] if in_channels else read[3:6]
    name = str(dtype).removeprefix("torch.")
    fmt = FORMATS.get(name)
    is_narrow = isinstance(fmt, IntFormat) and fmt.signed and bool(low == fmt.code_min + 1)
    if not isinstance(fmt, IntFormat) or high != fmt.code_max or (low != fmt.code_min and not is_narrow):
        raise InputError(f"node {node.name!r}: codes from {low} to {high} of type {name}, which no format here has")
    spec = QParamsSpec(
        format=fmt,
        symmetric=fmt.signed and not bool(zero_point.any()),
        granularity=Granularity.PER_CHANNEL if in_channels else Granularity.PER_TENSOR,
        narrow_range=is_narrow,
    )
    return QParams(spec, scale if in_channels else scale.reshape(()), zero_point.reshape(scale.shape), axis)


def _real(codes: torch.Tensor, qparams: QParams) -> torch.Tensor:
    shape = [1] * codes.dim()
    if qparams.axis is not None:
        shape[qparams.axis] = -1
    scale, zero_point = qparams.scale, qparams.zero_point
    if qparams.axis is None:
        return (codes.float() - zero_point) * scale
    return (codes.float() - zero_point.reshape(shape)) * scale.reshape(shape)


def _plan_of(program: Program, found: Mapping[TensorRef, QParams]) -> QuantPlan:
    graph = program.graph
    chains = list(_chains(graph, found))
    biases = dict(_biases(graph, chains, found))
    quantized = frozenset(node.name for chain in chains for node in chain)
    own = {ref: each.spec for ref, each in found.items() if ref not in {bias.bias for bias in biases.values()}}
    activations = {ref: spec for ref, spec in own.items() if not graph.is_constant(ref)}
    weights = {ref: spec for ref, spec in own.items() if graph.is_constant(ref)}
    floating = [n for n in graph.nodes if any(graph.tensors[ref].is_floating for ref in n.outputs)]
    scheme = QuantScheme(
        name="torchao",
        activations=next(iter(activations.values())),
        weights=next(iter(weights.values()), next(iter(activations.values()))),
        bias=BiasKind.INT32 if biases else BiasKind.FLOAT32,
        quantized_operators=frozenset(chain[0].op for chain in chains),
    )
    return QuantPlan(
        scheme=scheme,
        activations=activations,
        weights=weights,
        groups=(),
        biases=biases,
        fused=tuple(tuple(node.name for node in chain) for chain in chains if len(chain) > 1),
        quantized=quantized,
        kept_float={node.name: _LEFT for node in floating if node.name not in quantized},
    )


def _chains(graph: Graph, found: Mapping[TensorRef, QParams]) -> Iterator[tuple[Node, ...]]:
    """The nodes that read codes alone, each with what runs fused behind it."""
    taken: set[str] = set()
    for node in graph.nodes:
        bias = graph.layer_positions(node)[2] if graph.is_layer(node) else None
        read = [ref for i, ref in enumerate(node.inputs) if ref is not None and i != bias]
        floating = [ref for ref in read if graph.tensors[ref].is_floating]
        if node.name in taken or not floating or any(ref not in found for ref in floating):
            continue
        chain = tuple(_chain(graph, node, found))
        taken.update(each.name for each in chain)
        yield chain


def _chain(graph: Graph, node: Node, found: Mapping[TensorRef, QParams]) -> Iterator[Node]:
    """As long as nothing is quantized in between: clamps, and additions of codes to a layer's sums."""
    follower: Node | None = node
    is_layer = graph.is_layer(node)
    while follower is not None:
        yield follower
        result = follower.outputs[0]
        follower = None if result in found else graph.sole_consumer(result)
        if follower is None or follower.op in _CLAMPS:
            continue
        others = [ref for ref in follower.tensors if ref != result]
        if not is_layer or follower.op not in _SUMS or any(ref not in found for ref in others):
            return


def _biases(
    graph: Graph, chains: list[tuple[Node, ...]], found: Mapping[TensorRef, QParams]
) -> Iterator[tuple[str, BiasPlan]]:
    for node, *_ in chains:
        if not graph.is_layer(node):
            continue
        data, weight, bias = (node.inputs[i] if i < len(node.inputs) else None for i in graph.layer_positions(node))
        if data is not None and weight is not None and bias is not None and bias in found:
            yield node.name, BiasPlan(bias=bias, input=data, weight=weight)
