"""Folds batch norms into the layers before them, and those that no such layer takes in into the layers behind them.

With `k = gamma / sqrt(var + eps)`: `w' = w * k`, `b' = beta + (b - mean) * k` (Jacob et al. 2018, eq. 14). Between
layer and norm may lie what moves elements or averages them within their channel (`linear, transpose, norm`), and a
concatenation of such.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import KIND, REF, copy_graph, operator_type
from bitwright.quant.graph import LAYERS, TensorKind, TensorRef
from bitwright.quant.moves import AVERAGES, averaged, channel_numbers, is_move, moved
from bitwright.quant.passes.fold_norm_ahead import fold_norms_ahead
from bitwright.quant.passes.norm_parameters import affine_of, new_bias, scaled_outputs
from bitwright.quant.rewrite import fresh_ref, shape_of, used_ordinals


def fold_batch_norm(captured: CapturedModel, *, trains_on: bool = False) -> CapturedModel:
    """Returns the network with every batch norm folded that follows a layer read by it alone, or is read by such alone.

    A layer that runs several times (a head over several levels) is folded when each run is followed by the same norm;
    a weight that is shared otherwise is left alone, and so is a batch norm whose layer has other readers. What is
    folded into the layers behind says `fold_norm_ahead`.

    Args:
        captured: the network; stays as it is.
        trains_on: the norms will still change, so that a layer gets a bias even where it is zero now. Only norms
            directly behind their layer are folded: training computes those from the layer's own batch.
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
    if not trains_on:
        ordinals = used_ordinals(captured)
        for norm in [node for node in graph.nodes if operator_type(node) == "batch_norm"]:
            _fold_through_moves(graph, norm, values, replaced, ordinals)
        fold_norms_ahead(graph, values, ordinals)
    for node in reversed(list(graph.nodes)):
        if node.op == "placeholder" and node.name in values and not node.users and node.meta[KIND] != TensorKind.STATE:
            graph.erase_node(node)
            del values[node.name]
    return replace(captured, fx_graph=graph, values=values, replaced=replaced)


def _runs(norm: torch.fx.Node, values: dict[str, torch.Tensor]) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """Every run of the layer before a norm, each with the norm behind it; empty when they cannot be folded."""
    layer: Any = norm.args[0]
    if operator_type(layer) not in LAYERS:
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
    affine = affine_of(norm, values)
    assert affine is not None  # all of its parameters are constants
    bias_node = _taken_in(graph, layer, affine.factor, affine.shift, values, trains_on=trains_on)
    for each, behind in runs:
        each.args = (*each.args[:2], bias_node, *each.args[3:])
        behind.replace_all_uses_with(each)
        graph.erase_node(behind)


def _taken_in(
    graph: torch.fx.Graph,
    layer: torch.fx.Node,
    factor: torch.Tensor,
    shift: torch.Tensor,
    values: dict[str, torch.Tensor],
    *,
    trains_on: bool = False,
) -> torch.fx.Node | None:
    """Makes a layer's result `factor y + shift`, `[out]` both; returns its bias, if it has one now."""
    weight_node: Any = layer.args[1]
    bias_node: Any = layer.args[2] if len(layer.args) > 2 else None
    weight = values[weight_node.name]
    values[weight_node.name] = scaled_outputs(layer, weight, factor)
    before = values[bias_node.name].double() if bias_node is not None else 0.0
    folded = (shift + before * factor).to(weight.dtype)
    if bias_node is None and (trains_on or folded.any()):  # a bias of zeros would cost every run an addition
        bias_node = new_bias(graph, weight_node, folded)
    if bias_node is not None:
        values[bias_node.name] = folded
    return bias_node  # type: ignore[no-any-return]


def _fold_through_moves(
    graph: torch.fx.Graph,
    norm: torch.fx.Node,
    values: dict[str, torch.Tensor],
    replaced: dict[TensorRef, TensorRef],
    ordinals: dict[tuple[str, int], int],
) -> None:
    """Folds a norm into the layers before it when only moves, averages and concatenations of them lie between."""
    affine, before = affine_of(norm, values), _Before(values)
    last: Any = norm.args[0]
    numbers = before.numbers(last) if affine is not None else None
    place = None if numbers is None or numbers.dim() < 2 else _norm_channels(numbers, before.channels)
    if affine is None or place is None or last in before.layers:
        return
    read, factor, shift = place >= 0, torch.ones(len(place)).double(), torch.zeros(len(place)).double()
    factor[read], shift[read] = affine.factor[place[read]], affine.shift[place[read]]
    for layer, channels in before.layers.items():
        bias = _taken_in(graph, layer, factor[channels], shift[channels], values)
        layer.args = (*layer.args[:2], bias, *layer.args[3:])
    for node in before.seen:
        if node is not last:
            node.meta[REF] = tuple(ref and fresh_ref(ref, ordinals) for ref in node.meta[REF])
    replaced[norm.meta[REF][0]] = last.meta[REF][0]
    norm.replace_all_uses_with(last)
    graph.erase_node(norm)


class _Before:
    """What makes a tensor: layers, each read by one reader alone, through moves, averages and concatenations.

    Attributes:
        layers: with their channels among those of all.
        channels: how many that are.
        seen: every tensor on the way.
    """

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        self.layers: dict[torch.fx.Node, slice] = {}
        self.channels = 0
        self.seen: list[torch.fx.Node] = []
        self._values = values

    def numbers(self, node: Any) -> Any:
        """From which channel, counted from 1, each element of a tensor comes; None where something else makes one."""
        if not isinstance(node, torch.fx.Node) or len(node.users) != 1:
            return None
        self.seen.append(node)
        kind = operator_type(node)
        if kind in LAYERS:
            return self._layer(node)
        if kind == "cat":
            given: Any = node.args
            parts = [self.numbers(part) for part in node.all_input_nodes]
            whole = len(parts) == len(given[0]) and all(part is not None for part in parts)
            return torch.cat(parts, *given[1:]) if whole else None
        if not (kind in AVERAGES or is_move(node)):
            return None
        numbers = self.numbers(node.args[0])
        if numbers is None:
            return None
        return averaged(node, numbers) if kind in AVERAGES else moved(node, numbers)

    def _layer(self, layer: torch.fx.Node) -> torch.Tensor | None:
        own = [node for node in layer.args[1:3] if isinstance(node, torch.fx.Node)]
        shape = shape_of(layer)
        if shape is None or any(node.name not in self._values or len(node.users) != 1 for node in own):
            return None
        axis, first = -1 if operator_type(layer) == "linear" else 1, self.channels
        self.channels += shape[axis]
        self.layers[layer] = slice(first, self.channels)
        return channel_numbers(shape, axis) + first


def _norm_channels(numbers: torch.Tensor, channels: int) -> torch.Tensor | None:
    """Which channel of the norm each of the layers' is, int64 `[channels]`, -1 for none; None where one is several."""
    place = torch.full((channels,), -1)
    for channel, row in enumerate(numbers.movedim(1, 0).flatten(1)):
        there = row.long().flatten() - 1
        if (place[there] >= 0).any():
            return None
        place[there] = channel
    return place
