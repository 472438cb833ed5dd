"""A captured network as torch's runtimes take it: one call with the weights inside, so that they can be frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.hw_constraints.backends.base import TensorSpec
from bitwright.quant.captured_model import CapturedModel


def captured_callable(captured: CapturedModel, device: str) -> tuple[Callable[..., Any], tuple[TensorSpec, ...]]:
    """The network on a device as a callable that takes its inputs by name, and what they are.

    Each call starts from the state at capture: buffers that `forward` mutates are not carried on.
    """
    inputs = tuple(
        TensorSpec(
            name=node.name,
            dtype=str(node.meta["val"].dtype).removeprefix("torch."),
            shape=tuple(node.meta["val"].shape),
        )
        for node in captured.input_nodes
    )
    return _Captured(captured).to(device), inputs


class _Captured(torch.nn.Module):
    def __init__(self, captured: CapturedModel) -> None:
        super().__init__()
        self.network = torch.fx.GraphModule(torch.nn.Module(), captured.fx_graph)
        self.names = [node.name for node in captured.fx_graph.nodes if node.op == "placeholder"]
        self.state_count = len(captured.state_names)
        self.out_spec = captured.out_spec
        self.weights = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(value.detach(), requires_grad=False) for name, value in captured.values.items()}
        )

    def forward(self, **inputs: torch.Tensor) -> Any:
        arguments = [self.weights[name] if name in self.weights else inputs[name] for name in self.names]
        results = self.network(*arguments)
        return pytree.tree_unflatten(list(results[self.state_count :]), self.out_spec)
