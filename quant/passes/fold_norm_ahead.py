"""Folds batch norms into the layers behind them.

With `k = gamma / sqrt(var + eps)` and `s = beta - mean k` a layer that reads `k x + s` is one that reads x:

    W (k x + s) + b = (W diag(k)) x + (b + W s).

It is exact for linear layers and for convolutions that pad nothing (a padded zero would have to become `-s / k`), and
for transposed ones of a single tap; where s is zero, for all. Between norm and layer may lie what moves elements, or
averages them within their channel: `norm, mean, linear` or `norm, flatten, linear`.

What is the same in float need not be in codes: a norm may be what makes channels of unlike size alike, and a dead
channel's `1 / sqrt(eps)` in a weight leaves its row's other codes no room. So a norm stays where 8-bit codes would
make more than `WORTH` times the noise, by its own statistics (means and deviations, ranges of three deviations as in
Nagel et al. 2019, arXiv:1906.04721, section 4.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from bitwright.quant.fx_nodes import REF, operator_type
from bitwright.quant.graph import CONVOLUTIONS, LAYERS
from bitwright.quant.moves import AVERAGES, averaged, channel_numbers, is_move, moved, one_for_each
from bitwright.quant.passes.norm_parameters import (
    Affine,
    affine_of,
    new_bias,
    rows_of,
    weight_of,
)
from bitwright.quant.rewrite import arguments, fresh_ref, pair, shape_of

WORTH = 4.0  # one bit: what a norm that stays costs is a pass over the map in float


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a norm: which channel of the norm each of its input channels is, and what lies between."""

    layer: torch.fx.Node
    channels: torch.Tensor
    between: tuple[torch.fx.Node, ...]


def fold_norms_ahead(
    graph: torch.fx.Graph, values: dict[str, torch.Tensor], ordinals: dict[tuple[str, int], int]
) -> None:
    """Folds every batch norm that only such layers read, each with a weight of its own.

    Norms with the same parameters may share their layers (a head over several levels).

    Args:
        graph: changed in place.
        values: its constants, by name; changed in place.
        ordinals: as of `rewrite.used_ordinals`; what lies between gets references of its own.
    """
    for norms in _groups(graph):
        affine = affine_of(norms[0], values)
        readers = _readers_of(norms, affine, values) if affine is not None else []
        if affine is None or not readers:
            continue
        _fold(graph, readers, affine, values)
        for norm in norms:
            norm.replace_all_uses_with(norm.all_input_nodes[0])
            graph.erase_node(norm)
        for node in {each: None for reader in readers for each in reader.between}:
            node.meta[REF] = tuple(ref and fresh_ref(ref, ordinals) for ref in node.meta[REF])


def _groups(graph: torch.fx.Graph) -> list[list[torch.fx.Node]]:
    """Batch norms in evaluation, those with the same parameters together."""
    found: dict[Any, list[torch.fx.Node]] = {}
    for node in graph.nodes:
        if operator_type(node) == "batch_norm" and not node.args[5] and shape_of(node) is not None:
            found.setdefault(tuple(node.args[1:]), []).append(node)
    return list(found.values())


def _readers_of(norms: list[torch.fx.Node], affine: Affine, values: dict[str, torch.Tensor]) -> list[_Reader]:
    """All layers that read these norms; empty when not all readers are such layers, or they are not theirs alone."""
    found: list[_Reader] = []
    for norm in norms:
        readers = _readers(norm, channel_numbers(norm.meta["val"].shape, 1), ())
        if not readers:
            return []
        found += readers
    layers = {reader.layer for reader in found}
    channels: dict[torch.fx.Node, torch.Tensor] = {}
    for reader in found:
        own = [node for node in reader.layer.args[1:3] if isinstance(node, torch.fx.Node)]
        if any(node.name not in values or not set(node.users) <= layers for node in own):
            return []
        if not torch.equal(channels.setdefault(own[0], reader.channels), reader.channels):
            return []
        local = affine.at(reader.channels)
        if local.shift.any() and not _sees_no_border(reader.layer):
            return []
        if not _is_worth_it(reader.layer, values[own[0].name], local):
            return []
    biases = {(reader.layer.args[1], (*reader.layer.args, None)[2]) for reader in found}
    return found if len(biases) == len(channels) else []


def _readers(node: torch.fx.Node, numbers: Any, between: tuple[torch.fx.Node, ...]) -> list[_Reader]:
    """The layers that read a tensor whose elements come from these channels; empty when something else does."""
    found: list[_Reader] = []
    for user in node.users:
        if is_move(user):
            behind = _readers(user, moved(user, numbers), (*between, user))
        elif operator_type(user) in AVERAGES and (means := averaged(user, numbers)) is not None:
            behind = _readers(user, means, (*between, user))
        else:
            behind = _as_reader(user, node, numbers, between)
        if not behind:
            return []
        found += behind
    return found


def _as_reader(
    user: torch.fx.Node, node: torch.fx.Node, numbers: Any, between: tuple[torch.fx.Node, ...]
) -> list[_Reader]:
    kind = operator_type(user)
    if kind not in LAYERS or user.all_input_nodes.count(node) != 1:
        return []
    weight: Any = user.args[1]
    if user.args[0] is not node or (kind != "linear" and numbers.dim() != weight.meta["val"].dim()):
        return []
    channels = one_for_each(numbers, -1 if kind == "linear" else 1)
    return [] if channels is None else [_Reader(user, channels, between)]


def _sees_no_border(layer: torch.fx.Node) -> bool:
    """Whether every output pixel sums over every tap, so that a constant in front is a constant behind."""
    kind = operator_type(layer)
    if kind == "linear":
        return True
    of = arguments(layer)
    taps = tuple(of["weight"].meta["val"].shape[2:])
    padding = of["padding"]
    if isinstance(padding, str):
        return padding == "valid" or set(taps) == {1}
    if any(pair(padding)) or kind in CONVOLUTIONS:
        return not any(pair(padding))
    return set(taps) == {1} and set(pair(of["stride"])) == {1} and not any(pair(of["output_padding"]))


def _is_worth_it(layer: torch.fx.Node, weight: torch.Tensor, affine: Affine) -> bool:
    """Whether 8-bit codes make at most `WORTH` times the noise once it is folded.

    Steps are in proportion to ranges: one for the activations, one for each row of weights. Rounding a tensor of step
    d makes d^2 / 12 an element, which the other factor's squares carry on; what both sides have in common is left out.
    """
    rows = rows_of(layer, weight)
    groups = rows.shape[0]
    factor, mean, deviation = (x.reshape(groups, 1, -1, 1) for x in (affine.factor, affine.mean, affine.deviation))
    center, spread = affine.shift.reshape(factor.shape) + mean * factor, factor.abs() * deviation

    def noise(weights: torch.Tensor, centers: torch.Tensor, spreads: torch.Tensor) -> float:
        largest = (centers.abs() + 3.0 * spreads).max()
        steps = weights.abs().amax(dim=(2, 3), keepdim=True)
        powers = (centers.square() + spreads.square()).expand_as(weights)
        return float((largest * weights).square().sum() + (steps.square() * powers).sum())

    return noise(rows * factor, mean, deviation) <= WORTH * noise(rows, center, spread)


def _fold(
    graph: torch.fx.Graph,
    readers: list[_Reader],
    affine: Affine,
    values: dict[str, torch.Tensor],
) -> None:
    biases: dict[torch.fx.Node, torch.fx.Node | None] = {}
    for reader in readers:
        layer, local = reader.layer, affine.at(reader.channels)
        weight: Any = layer.args[1]
        if weight not in biases:
            biases[weight] = _fold_into(graph, layer, local, values)
        layer.args = (*layer.args[:2], biases[weight], *layer.args[3:])


def _fold_into(
    graph: torch.fx.Graph, layer: torch.fx.Node, affine: Affine, values: dict[str, torch.Tensor]
) -> torch.fx.Node | None:
    """Changes a layer's parameters; its bias, if it has one now."""
    weight_node: Any = layer.args[1]
    bias_node: Any = layer.args[2] if len(layer.args) > 2 else None
    weight = values[weight_node.name]
    rows = rows_of(layer, weight)
    factor, shift = (x.reshape(rows.shape[0], 1, -1, 1) for x in (affine.factor, affine.shift))
    added = (rows * shift).sum(dim=(2, 3)).flatten()
    values[weight_node.name] = weight_of(layer, rows * factor, weight)
    if bias_node is None and added.any():
        bias_node = new_bias(graph, weight_node, added.to(weight.dtype))
        values[bias_node.name] = added.to(weight.dtype)
    elif bias_node is not None:
        values[bias_node.name] = (values[bias_node.name].double() + added).to(weight.dtype)
    return bias_node  # type: ignore[no-any-return]
