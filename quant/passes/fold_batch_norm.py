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


def fold_batch_norm(captured: CapturedModel, *, trains_on: bool = False) -> CapturedModel:
    """Returns the network with every batch norm folded that directly follows a layer read by it alone.

    A layer that runs several times (a head over several levels) is folded when each run is followed by the same norm;
    a weight that is shared otherwise is left alone, and so is a batch norm whose layer has other readers.

    Args:
        captured: the network; stays as it is.
        trains_on: the norms will still change, so that a layer gets a bias even where it is zero now.
    """
    graph, _ = copy_graph(captured.fx_graph)
    values = dict(captured.values)
    replaced = dict(captured.replaced)
    folded: set[torch.fx.Node] = set()
    for norm in [node for node in graph.nodes if operator_type(node) == "batch_norm"]:
        runs = _runs(norm, values) if norm not in folded else []
        if runs:
            replaced.update({other.meta[REF][0]: layer.meta[REF][0] for layer, other in runs})
            folded.update(other for _, other in runs)
            _fold(graph, runs, values, trains_on=trains_on)
    for node in reversed(list(graph.nodes)):
        if node.op == "placeholder" and node.name in values and not node.users and node.meta[KIND] != TensorKind.STATE:
            graph.erase_node(node)
            del values[node.name]
    return replace(captured, fx_graph=graph, values=values, replaced=replaced)


def _runs(norm: torch.fx.Node, values: dict[str, torch.Tensor]) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """Every run of the layer before a norm, each with the norm behind it; empty when they cannot be folded."""
    layer: Any = norm.args[0]
    if operator_type(layer) not in _LAYERS:
        return []
    layers = list(layer.args[1].users)
    if any(len(each.users) != 1 for each in layers):
        return []
    runs = [(each, next(iter(each.users))) for each in layers]
    return runs if all(_folds_alike(run, (layer, norm), layers, values) for run in runs) else []


def _folds_alike(
    run: tuple[torch.fx.Node, torch.fx.Node],
    first: tuple[torch.fx.Node, torch.fx.Node],
    layers: list[torch.fx.Node],
    values: dict[str, torch.Tensor],
) -> bool:
    """Whether a run has the first one's layer, parameters and norm, nobody else reads those, and all are constants."""
    layer, norm = run
    same = layer.target is first[0].target and norm.target is first[1].target and norm.args[0] is layer
    if not same or layer.args[1:] != first[0].args[1:] or norm.args[1:] != first[1].args[1:]:
        return False
    if operator_type(layer) == "linear" and layer.meta["val"].dim() != 2:
        return False  # its channels lie last, those of the norm at 1
    own = [node for node in layer.args[1:3] if isinstance(node, torch.fx.Node)]
    constants = [*own, *(node for node in norm.args[1:5] if isinstance(node, torch.fx.Node))]
    return all(node.name in values for node in constants) and all(set(node.users) == set(layers) for node in own)


def _fold(
    graph: torch.fx.Graph,
    runs: list[tuple[torch.fx.Node, torch.fx.Node]],
    values: dict[str, torch.Tensor],
    *,
    trains_on: bool,
) -> None:
    layer, norm = runs[0]
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
    if bias_node is None and (trains_on or folded.any()):  # a bias of zeros would cost every run an addition
        bias_node = _new_bias(graph, weight_node, folded)
    if bias_node is not None:
        values[bias_node.name] = folded
    for each, behind in runs:
        each.args = (*each.args[:2], bias_node, *each.args[3:])
        behind.replace_all_uses_with(each)
        graph.erase_node(behind)


def _scaled(weight: torch.Tensor, factor: torch.Tensor, layer: torch.fx.Node) -> torch.Tensor:
    """The weight with each output channel times its factor; transposed convolutions are [in, out / groups, …]."""
    if not operator_type(layer).startswith("conv_transpose"):
        return (weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
    groups: Any = layer.args[6] if len(layer.args) > 6 else 1
    grouped = weight.double().reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return scaled.reshape(weight.shape).to(weight.dtype)


def _new_bias(graph: torch.fx.Graph, weight_node: torch.fx.Node, bias: torch.Tensor) -> torch.fx.Node:
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
