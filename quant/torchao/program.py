"""A program as torchao holds it (`torch.export.export(…).module()`), read as one of our graphs."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
import torch.utils._pytree as pytree

from bitwright.quant.capture import identify
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.fx_nodes import KIND, MODULE, REF, SOURCE
from bitwright.quant.graph import Graph, TensorKind, TensorRef


@dataclass(frozen=True, kw_only=True)
class Program:
    """Our view of a module of torchao's.

    Attributes:
        captured: the network; parameters by their names in the module.
        nodes: the node of the module that makes each tensor.
        by_name: the module's node of each of the graph's operators.
    """

    captured: CapturedModel
    nodes: dict[TensorRef, torch.fx.Node]
    by_name: dict[str, torch.fx.Node]

    @property
    def graph(self) -> Graph:
        """The same network, torch-free."""
        return self.captured.graph


def read_program(module: torch.fx.GraphModule) -> Program:
    """Reads a module; its nodes are noted with their `TensorRef`, which torchao's passes carry along.

    Raises:
        InputError: the module was not made by `torch.export`: its nodes tell no shapes.
    """
    copy, copied = torch.fx.Graph(), {}
    values: dict[str, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "call_module" or node.op == "output":
            continue  # `_guards_fn` checks arguments and makes nothing
        if node.op == "get_attr":
            copied[node] = copy.placeholder(node.name)
            tensor = _attribute(module, str(node.target))
            values[copied[node].name] = tensor
            copied[node].meta = {REF: (TensorRef("", str(node.target)),), KIND: _kind(tensor), "val": tensor}
            continue
        copied[node] = copy.node_copy(node, copied.__getitem__)
        copied[node].meta = dict(node.meta)
        if "val" not in node.meta:
            raise InputError(f"node {node.name!r} tells no shape; export the model with torch.export.export first")
        if node.op == "placeholder":
            copied[node].meta |= {REF: (TensorRef("", f"${node.name}"),), KIND: TensorKind.INPUT}
    results = [node for node in pytree.tree_leaves(module.graph.output_node().args) if isinstance(node, torch.fx.Node)]
    copy.output([copied[node] for node in results])
    identify(copy, "", None)
    copy.output_node().meta["bitwright_state"] = ()
    call: Any = module.graph._codegen
    specs = call.pytree_info  # of every module that `torch.export` made
    captured = CapturedModel(fx_graph=copy, values=values, in_spec=specs.in_spec, out_spec=specs.out_spec)
    for node, ours in copied.items():
        node.meta |= {key: ours.meta[key] for key in (REF, MODULE, SOURCE) if key in ours.meta}
    by_name = {ours.name: node for node, ours in copied.items()}
    return Program(captured=captured, nodes=_makers(copied), by_name=by_name)


def _makers(copied: dict[torch.fx.Node, torch.fx.Node]) -> dict[TensorRef, torch.fx.Node]:
    """Of an operator with several results each is made by the node that picks it."""
    makers = {}
    for node, ours in copied.items():
        if node.target is operator.getitem:
            source, index = ours.args
            assert isinstance(source, torch.fx.Node) and isinstance(index, int)
            makers[source.meta[REF][index]] = node
        elif ours.meta.get(REF) and len(ours.meta[REF]) == 1 and ours.meta[REF][0] is not None:
            makers[ours.meta[REF][0]] = node
    return makers


def _attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    tensor = operator.attrgetter(path)(module)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach()


def _kind(tensor: torch.Tensor) -> TensorKind:
    return TensorKind.PARAMETER if tensor.is_floating_point() else TensorKind.BUFFER
