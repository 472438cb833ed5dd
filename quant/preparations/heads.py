"""Products of attention whose factors come from linear layers: which rows of a weight end up in which head.

Between a layer and a product lie operators that only move elements (and a division by a number). Where each channel
goes is found by sending the channels' own numbers through these operators; no rule about axes is needed, and queries,
keys and values may be parts of what one layer gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.moves import channel_numbers, is_move, moved

_BY_A_NUMBER = frozenset({"div", "mul"})


@dataclass(frozen=True)
class HeadPair:
    """Two layers whose channels meet head by head: `first` gives what `second` multiplies or reads.

    Attributes:
        first: names of the weight and, where there is one, the bias whose rows are a head's channels.
        second: likewise; of the layer behind `softmax(…) v` the weight alone, whose columns they are.
        reads: whether the second layer reads the channels, so that they are its columns.
        blocks: the channels of each head in the first, and in the same order those of the second.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    reads: bool
    blocks: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Made:
    """A factor of a product: by which layer, and the channel, from 0, that each element comes from."""

    layer: torch.fx.Node
    own: tuple[str, ...]
    channels: torch.Tensor


def find_head_pairs(captured: CapturedModel) -> list[HeadPair]:
    """Queries with keys, and values with the layer that mixes the heads, wherever nobody else sees them."""
    return [found for _, found in _found(captured) if isinstance(found, HeadPair)]


def heads_left_alone(captured: CapturedModel) -> dict[str, str]:
    """Why the factors of a product of two activations cannot be rotated, by the product's module and what they are."""
    return {where: found for where, found in _found(captured) if isinstance(found, str)}


def _found(captured: CapturedModel) -> Iterator[tuple[str, HeadPair | str]]:
    for product in captured.fx_graph.nodes:
        if operator_type(product) != "matmul":
            continue
        left, right = product.args
        if any(node.name in captured.values for node in (left, right)):
            continue
        if any(operator_type(node) == "softmax" for node in _upwards(left)):
            yield f"values of {product.name}", _values(captured, product, right)
        else:
            yield f"queries and keys of {product.name}", _scores(captured, product, left, right)


def _upwards(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """A node and what it is moved from."""
    yield node
    while _passes(node):
        node = node.all_input_nodes[0]
        yield node


def _scores(
    captured: CapturedModel, product: torch.fx.Node, left: torch.fx.Node, right: torch.fx.Node
) -> HeadPair | str:
    """`q k^T`: the channels that are summed over."""
    first, second = _behind_layer(captured, left), _behind_layer(captured, right)
    for made in (first, second):
        if isinstance(made, str):
            return made
    assert isinstance(first, _Made) and isinstance(second, _Made)
    blocks = _blocks(first.channels, second.channels.transpose(-1, -2))
    if isinstance(blocks, str):
        return blocks
    used = [{channel for block in blocks for channel in block[side]} for side in (0, 1)]
    if first.layer is second.layer and used[0] & used[1]:
        return "queries are keys"
    for made, channels in zip((first, second), used, strict=True):
        if not _are_alone(made, channels, product):
            return "others read them as well"
    return HeadPair(first.own, second.own, False, blocks)


def _values(captured: CapturedModel, product: torch.fx.Node, right: torch.fx.Node) -> HeadPair | str:
    """`softmax(…) v` and the layer behind it: the channels that stay."""
    made = _behind_layer(captured, right)
    if isinstance(made, str):
        return made
    channels, shape = made.channels, product.meta["val"].shape
    if channels.dim() < 2 or not bool((channels == channels[..., :1, :]).all()):
        return "channels lie along the tokens"
    numbers: Any = channels[..., :1, :].expand(shape).contiguous()
    node = product
    while len(node.users) == 1 and is_move(follower := next(iter(node.users))):
        numbers, node = moved(follower, numbers), follower
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is None or operator_type(reader) != "linear" or reader.args[0] is not node:
        return "no linear layer alone reads the heads"
    own, order = _parameters(captured, reader), numbers.reshape(-1, numbers.shape[-1])
    if own is None or not bool((order == order[:1]).all()):
        return "the weight that reads the heads is shared, or reads tokens"
    place = {int(channel): column for column, channel in enumerate(order[0])}
    heads = _different(channels[..., 0, :].reshape(-1, channels.shape[-1])).tolist()
    seen = [channel for head in heads for channel in head]
    if sorted(place) != sorted(seen):
        return "heads share their values"
    if not _are_alone(made, set(seen), product):
        return "others read them as well"
    blocks = tuple((tuple(head), tuple(place[channel] for channel in head)) for head in heads)
    return HeadPair(made.own, own[:1], True, blocks)


def _blocks(rows: torch.Tensor, columns: torch.Tensor) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] | str:
    """What meets along the last axis, `[…, tokens, D]` both: the same in every token; a reason where it is not."""
    parts = [part[..., 0, :].reshape(-1, part.shape[-1]) for part in (rows, columns)]
    alike = all(bool((part == part[..., :1, :]).all()) for part in (rows, columns))
    if not alike or parts[0].shape != parts[1].shape:
        return "channels lie along the tokens"
    pairs = _different(torch.cat(parts, 1))
    size = rows.shape[-1]
    used = [pairs[:, :size].flatten().tolist(), pairs[:, size:].flatten().tolist()]
    if any(len(set(each)) != len(each) for each in used):
        return "several heads of queries share a head of keys"
    return tuple((tuple(pair[:size]), tuple(pair[size:])) for pair in pairs.tolist())


def _different(rows: torch.Tensor) -> torch.Tensor:
    """Each row once, as whole numbers."""
    found: torch.Tensor = torch.unique(rows, dim=0)
    return found.long()


def _behind_layer(captured: CapturedModel, node: torch.fx.Node) -> _Made | str:
    """The linear layer that makes a factor, through moves alone; a reason where none does."""
    path = list(_upwards(node))
    layer = path.pop()
    if operator_type(layer) != "linear":
        return f"{operator_type(layer) or layer.name} stands between layer and product"
    own = _parameters(captured, layer)
    if own is None:
        return "their layer's weight is shared"
    numbers: Any = channel_numbers(layer.meta["val"].shape, -1) - 1
    for step in reversed(path):
        numbers = _sent_through(step, numbers)
    return _Made(layer, own, numbers)


def _are_alone(made: _Made, channels: set[int], product: torch.fx.Node) -> bool:
    """Whether nobody but a product reads these channels of a layer, once."""
    numbers = channel_numbers(made.layer.meta["val"].shape, -1) - 1
    ends = _ends(made.layer, numbers)
    return [user for user, seen in ends if channels & set(seen.long().flatten().tolist())] == [product]


def _ends(node: torch.fx.Node, numbers: Any) -> Iterator[tuple[torch.fx.Node, torch.Tensor]]:
    """Whoever reads a tensor behind moves, and the channels that it reads."""
    for user in node.users:
        if _passes(user):
            yield from _ends(user, _sent_through(user, numbers))
        else:
            yield from ((user, part) for part in (numbers if isinstance(numbers, list | tuple) else [numbers]))


def _passes(node: torch.fx.Node) -> bool:
    alone = len(node.all_input_nodes) == 1 and not any(isinstance(each, torch.fx.Node) for each in node.args[1:])
    return alone and (is_move(node) or operator_type(node) in _BY_A_NUMBER)


def _sent_through(node: torch.fx.Node, numbers: Any) -> Any:
    return numbers if operator_type(node) in _BY_A_NUMBER else moved(node, numbers)


def _parameters(captured: CapturedModel, layer: torch.fx.Node) -> tuple[str, ...] | None:
    """The names of a layer's weight and bias when it alone reads them."""
    nodes = [node for node in layer.args[1:3] if isinstance(node, torch.fx.Node)]
    own = all(node.name in captured.values and len(node.users) == 1 for node in nodes)
    return tuple(node.name for node in nodes) if own and nodes else None
