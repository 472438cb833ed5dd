"""An imported network as one that can be run, calibrated and rewritten: each operator call becomes ATen's own."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.utils._pytree as pytree
from torch._subclasses import FakeTensorMode

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.fx_nodes import KIND, MODULE, REF, SOURCE
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.onnx_import.absorbed import with_clamps
from bitwright.quant.onnx_import.import_graph import ImportedModel
from bitwright.quant.onnx_import.qparams import ImportedQParams
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel

STATE = "bitwright_state"


def to_captured(graph: Graph, name: str) -> CapturedModel:
    """The network as `capture` would have given it; its arguments are the inputs, its results the outputs, in order.

    Args:
        graph: of `graph_from_onnx`.
        name: of the file, for messages.

    Raises:
        InputError: a shape is not static, the network keeps a state, or an operator is none of ATen's.
    """
    if graph.state:
        raise InputError(f"{name}: keeps a state from run to run; give the PyTorch network instead")
    for ref, info in graph.tensors.items():
        if None in info.shape:
            raise InputError(f"{name}: tensor {ref} has the shape {info.shape}; give a file with static shapes")
    builder = _Builder(graph, name)
    for ref in graph.inputs:
        builder.placeholder(ref)
    for node in graph.nodes:
        builder.call(node)
    return builder.finish()


def to_quantized(imported: ImportedModel) -> tuple[QuantizedModel, CapturedModel]:
    """A quantized file as the network that its exporter had: float weights, plan and qparams.

    Returns:
        The quantized network, and the same network in float: weights have lost what the file's codes do not hold, and
        activations that its quantizers had swallowed are clamps at the ends of their ranges.

    Raises:
        InputError: the file is in float, has scales that are computed, or see `to_captured`.
    """
    if imported.plan is None:
        raise InputError(f"{imported.name}: has no QuantizeLinear; it is a network in float")
    graph, plan = imported.graph, imported.plan
    if imported.has_own_codes:
        graph, plan = with_clamps(graph, plan, dict(imported.qparams))
    captured = to_captured(graph, imported.name)
    # torch.fx spells names of nodes as Python identifiers.
    pairs = zip(graph.nodes, captured.graph.nodes, strict=True)
    plan = _renamed(plan, {old.name: new.name for old, new in pairs})
    wanted = {*plan.activations, *plan.weights}
    qparams = {ref: _qparams(imported.name, ref, imported.qparams[ref]) for ref in wanted}
    return QuantizedModel(captured=captured, plan=plan, qparams=qparams), captured


def _renamed(plan: QuantPlan, names: Mapping[str, str]) -> QuantPlan:
    return replace(
        plan,
        biases={names[name]: bias for name, bias in plan.biases.items()},
        fused=tuple(tuple(names[name] for name in chain) for chain in plan.fused),
        quantized=frozenset(names[name] for name in plan.quantized),
        kept_float={names[name]: why for name, why in plan.kept_float.items()},
    )


def _qparams(name: str, ref: TensorRef, known: ImportedQParams) -> QParams:
    if known.scale is None or known.zero_point is None:
        raise InputError(
            f"{name}: the scale of tensor {ref} is computed while the network runs; only fixed ones are known"
        )
    scale, zero_point = (torch.from_numpy(np.array(each, np.float32)) for each in (known.scale, known.zero_point))
    second = None if known.tensor_scale is None else torch.from_numpy(np.array(known.tensor_scale, np.float32))
    return QParams(known.spec, scale, zero_point, known.axis, second)


class _Builder:
    """Collects fx nodes; every call is tried on tensors without values, which finds its overload and its shapes."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph, self._name = graph, name
        self._fx = torch.fx.Graph()
        self._mode = FakeTensorMode()
        self._made: dict[TensorRef, torch.fx.Node] = {}
        self._values: dict[str, torch.Tensor] = {}
        self._constants = [ref for ref in graph.tensors if graph.is_constant(ref) and self._is_read(ref)]
        for ref in self._constants:
            value = torch.from_numpy(np.array(graph.array(ref)))
            self._values[self.placeholder(ref).name] = value

    def _is_read(self, ref: TensorRef) -> bool:
        return bool(self._graph.consumers[ref]) or ref in self._graph.outputs

    def placeholder(self, ref: TensorRef) -> torch.fx.Node:
        """A value or an input."""
        info = self._graph.tensors[ref]
        node = self._fx.placeholder("".join(c if c.isalnum() else "_" for c in f"p_{ref}"))
        node.meta = {REF: [ref], KIND: info.kind, MODULE: ("", ""), SOURCE: None}
        shape = [size or 0 for size in info.shape]
        with self._mode:
            node.meta["val"] = torch.empty(shape, dtype=getattr(torch, info.dtype))
        self._made[ref] = node
        return node

    def call(self, node: Node) -> None:
        """One operator call."""
        operands = [None if ref is None else self._made[ref] for ref in node.inputs]
        target, args, kwargs, value = self._overload(node, operands)
        made = self._fx.create_node("call_function", target, args, kwargs, name=node.name)
        parts = value if isinstance(value, list | tuple) else [value]
        refs = [*node.outputs, *[None] * (len(parts) - len(node.outputs))]
        made.meta = {REF: refs, "val": value, MODULE: (node.module_path, node.module_type), SOURCE: node.source}
        for place, (ref, part) in enumerate(zip(refs, parts, strict=True)):
            if ref is None:
                continue
            self._made[ref] = made
            if isinstance(value, list | tuple):
                self._made[ref] = self._fx.call_function(operator.getitem, (made, place))
                self._made[ref].meta = {REF: [], "val": part, MODULE: (node.module_path, ""), SOURCE: node.source}

    def _overload(
        self, node: Node, operands: Sequence[torch.fx.Node | None]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any], Any]:
        """The operator that takes these arguments, the arguments, and what it gives, without values."""
        packet = getattr(torch.ops.aten, node.op, None)
        if packet is None:
            raise InputError(f"{self._name}: operator {node.op!r} ({node.name}) is none that can be run here")
        problem = ""
        for overload in (getattr(packet, name) for name in packet.overloads()):
            bound = _bind(overload._schema.arguments, list(operands), dict(node.attributes))
            if bound is None:
                continue
            args, kwargs = bound
            try:
                with self._mode:
                    value = overload(*_fake(args), **_fake(kwargs))
            except (RuntimeError, TypeError, NotImplementedError) as error:  # torch says so that arguments do not fit
                problem = str(error).splitlines()[0]
                continue
            return overload, args, kwargs, value
        raise InputError(f"{self._name}: {node.op} ({node.name}) cannot be run: {problem or 'no such arguments'}")

    def finish(self) -> CapturedModel:
        """The network."""
        results = [self._made[ref] for ref in self._graph.outputs]
        output = self._fx.output(tuple(results))
        output.meta = {STATE: ()}
        leaf = tuple(range(len(results))) if len(results) > 1 else 0
        return CapturedModel(
            fx_graph=self._fx,
            values=self._values,
            in_spec=pytree.tree_flatten((tuple(range(len(self._graph.inputs))), {}))[1],
            out_spec=pytree.tree_flatten(leaf)[1],
        )


def _fake(arguments: Any) -> Any:
    return torch.fx.node.map_arg(arguments, lambda node: node.meta["val"])


def _bind(
    schema: Sequence[Any], operands: list[Any], attributes: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Positional and keyword arguments of an overload; None when it takes others."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    given = 0  # positional arguments up to the last one that is no default
    for argument in schema:
        found = _argument(argument, operands, attributes)
        if found is _MISSING:
            return None
        if argument.kwarg_only:
            if found is not _DEFAULT:
                keywords[argument.name] = found
            continue
        positional.append(argument.default_value if found is _DEFAULT else found)
        if found is not _DEFAULT:
            given = len(positional)
    if attributes or any(operand is not None for operand in operands):
        return None
    return tuple(positional[:given]), keywords


_MISSING, _DEFAULT = object(), object()


def _argument(argument: Any, operands: list[Any], attributes: dict[str, Any]) -> Any:
    """What an argument of a schema gets; takes it from the operands or attributes."""
    kind = str(argument.type)
    if "Tensor" in kind:
        if argument.kwarg_only and "out" in argument.name:
            return _MISSING
        if "List" in kind:
            taken = list(operands)
            operands.clear()
            return taken
        operand = operands.pop(0) if operands else None
        if operand is None and argument.name in attributes:
            return _python(argument.name, attributes.pop(argument.name))
        return operand if operand is not None or not argument.has_default_value() else _DEFAULT
    if argument.name in attributes:
        return _python(argument.name, attributes.pop(argument.name))
    return _DEFAULT if argument.has_default_value() else _MISSING


def _python(name: str, value: Any) -> Any:
    if name == "dtype" and isinstance(value, str):
        return getattr(torch, value)
    return list(value) if isinstance(value, tuple) else value
