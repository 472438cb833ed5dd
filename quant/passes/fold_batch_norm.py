"""Folds batch norms into the layers before them.

With `k = gamma / sqrt(var + eps)`: `w' = w * k`, `b' = beta + (b - mean) * k` (Jacob et al. 2018, eq. 14).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import KIND, REF, copy_graph, operator_type
from bitwright.quant.graph import TensorKind, TensorRef

_LAYERS = frozenset(
    ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"]
)


def fold_batch_norm(captured: CapturedModel) -> CapturedModel:
    """Returns the network with every batch norm folded that directly follows a layer read by it alone.

    A weight that two layers share is left alone, and so is a batch norm whose layer has other readers.
    """
    graph, _ = copy_graph(captured.fx_graph)
    values = dict(captured.values)
    replaced = dict(captured.replaced)
    for norm in [node for node in graph.nodes if operator_type(node) == "batch_norm"]:
        layer: Any = norm.args[0]
        if _can_fold(layer, norm, values):
            _fold(graph, layer, norm, values)
            replaced[norm.meta[REF][0]] = layer.meta[REF][0]
    for node in reversed(list(graph.nodes)):
        if node.op == "placeholder" and node.name in values and not node.users and node.meta[KIND] != TensorKind.STATE:
            graph.erase_node(node)
            del values[node.name]
    return replace(captured, fx_graph=graph, values=values, replaced=replaced)


def _can_fold(layer: torch.fx.Node, norm: torch.fx.Node, values: dict[str, torch.Tensor]) -> bool:
    if operator_type(layer) not in _LAYERS or len(layer.users) != 1:
        return False
    if operator_type(layer) == "linear" and layer.meta["val"].dim() != 2:
        return False  # its channels lie last, those of the norm at 1
    constants = [*layer.args[1:3], *norm.args[1:5]]
    if any(isinstance(node, torch.fx.Node) and node.name not in values for node in constants):
        return False
    return all(len(node.users) == 1 for node in layer.args[1:3] if isinstance(node, torch.fx.Node))


def _fold(graph: torch.fx.Graph, layer: torch.fx.Node, norm: torch.fx.Node, values: dict[str, torch.Tensor]) -> None:
    arguments: Any = layer.args
    weight_node = arguments[1]
    bias_node = arguments[2] if len(arguments) > 2 else None
    statistics: Any = norm.args
    gamma, beta, mean, var = (values[node.name].double() if node is not None else None for node in statistics[1:5])
    assert mean is not None and var is not None  # an eval-mode batch norm has running statistics
    factor = (gamma if gamma is not None else 1.0) / torch.sqrt(var + statistics[7])
    weight = values[weight_node.name]
    bias = values[bias_node.name].double() if bias_node is not None else torch.zeros_like(mean)
    values[weight_node.name] = _scaled(weight, factor, layer)
    folded = ((beta if beta is not None else 0.0) + (bias - mean) * factor).to(weight.dtype)
    if bias_node is None:
        bias_node = _new_bias(graph, layer, weight_node, folded)
        layer.args = (*arguments[:2], bias_node, *arguments[3:])
    values[bias_node.name] = folded
    norm.replace_all_uses_with(layer)
    graph.erase_node(norm)


def _scaled(weight: torch.Tensor, factor: torch.Tensor, layer: torch.fx.Node) -> torch.Tensor:
    """The weight with each output channel times its factor; transposed convolutions are [in, out / groups, …]."""
    if not operator_type(layer).startswith("conv_transpose"):
        return (weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
    groups: Any = layer.args[6] if len(layer.args) > 6 else 1
    grouped = weight.double().reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return scaled.reshape(weight.shape).to(weight.dtype)


def _new_bias(
    graph: torch.fx.Graph, layer: torch.fx.Node, weight_node: torch.fx.Node, bias: torch.Tensor
) -> torch.fx.Node:
    with graph.inserting_before(weight_node):
        node = graph.placeholder(f"{weight_node.name}_folded_bias")
    weight_ref = weight_node.meta[REF][0]
    path = weight_ref.module_path.rpartition(".")[0]
    node.meta.update(
        {
            REF: (TensorRef(weight_ref.region, f"{path}.bias" if path else "bias"),),
            KIND: TensorKind.PARAMETER,
            "val": bias,
        }
    )
    return node
