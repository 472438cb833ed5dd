"""A captured network as an `nn.Module` again, which can be called, trained, exported and saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.utils._pytree as pytree
from torch import nn

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import KIND, REF
from bitwright.quant.graph import TensorKind


class RebuiltModule(nn.Module):
    """Takes and returns what the user's own network did; parameters and buffers under flattened names.

    Buffers that the network mutates keep their new values from call to call.
    """

    body: Callable[..., Any]

    def __init__(self, captured: CapturedModel) -> None:
        super().__init__()
        root, names = _root_of(captured)
        graph = torch.fx.Graph()
        copied: dict[torch.fx.Node, torch.fx.Node] = {}
        for node in captured.fx_graph.nodes:
            if node.op == "placeholder" and node.name in names:
                copied[node] = graph.get_attr(names[node.name])
                copied[node].meta = dict(node.meta)
            elif node.op != "output":
                copied[node] = graph.node_copy(node, copied.__getitem__)
        output = captured.fx_graph.output_node()
        graph.output(torch.fx.node.map_arg(output.args[0], copied.__getitem__))
        self.body = torch.fx.GraphModule(root, graph)
        self._states = tuple(names[name] for name in captured.state_names)
        self._specs = captured.in_spec, captured.out_spec

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network."""
        leaves, _ = pytree.tree_flatten((args, kwargs))
        results = self.body(*leaves)
        for name, value in zip(self._states, results, strict=False):
            getattr(self.body, name).copy_(value)
        return pytree.tree_unflatten(list(results[len(self._states) :]), self._specs[1])


def to_module(captured: CapturedModel) -> nn.Module:
    """The captured network as a module in eval mode, with copies of its values."""
    return RebuiltModule(captured).eval()


def _root_of(captured: CapturedModel) -> tuple[nn.Module, dict[str, str]]:
    """A module that holds the values, and under which name each placeholder's is."""
    root, names = nn.Module(), {}
    for node in captured.fx_graph.nodes:
        if node.op != "placeholder" or node.name not in captured.values:
            continue
        value = captured.values[node.name].detach().clone()
        name = _free_name(root, node.meta[REF][0].module_path.replace(".", "_"))
        names[node.name] = name
        if node.meta[KIND] == TensorKind.PARAMETER and value.is_floating_point():
            root.register_parameter(name, nn.Parameter(value))
        else:
            root.register_buffer(name, value)
    return root, names


def _free_name(root: nn.Module, wanted: str) -> str:
    number, name = 2, wanted
    while hasattr(root, name):
        name, number = f"{wanted}{number}", number + 1
    return name
