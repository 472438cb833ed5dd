"""Products of attention whose factors come from linear layers: which rows of a weight end up in which head.

Between a layer and a product lie operators that only move elements (and a division by a number). Where each channel
goes is found by sending the channels' own numbers through these operators; no rule about axes is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type

_SHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
_MOVES = frozenset({*_SHAPES, "permute", "transpose", "expand", "clone", "contiguous"})
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


def find_head_pairs(captured: CapturedModel) -> list[HeadPair]:
    """Queries with keys, and values with the layer that mixes the heads, wherever nobody else sees them."""
    found = []
    for product in captured.fx_graph.nodes:
        if operator_type(product) == "matmul":
            left, right = product.args
            found += [
                pair for pair in (_scores(captured, left, right), _values(captured, product, right)) if pair is not None
            ]
    return found


def _scores(captured: CapturedModel, left: torch.fx.Node, right: torch.fx.Node) -> HeadPair | None:
    """`q k^T`: the channels that are summed over."""
    first, second = _behind_layer(captured, left), _behind_layer(captured, right)
    if first is None or second is None:
        return None
    (query, rows), (key, columns) = first, second
    blocks = _blocks(rows, columns.transpose(-1, -2))
    return None if blocks is None or query == key else HeadPair(query, key, False, blocks)


def _values(captured: CapturedModel, product: torch.fx.Node, right: torch.fx.Node) -> HeadPair | None:
    """`softmax(…) v` and the layer behind it: the channels that stay."""
    made = _behind_layer(captured, right)
    if made is None:
        return None
    value, channels = made
    shape = product.meta["val"].shape
    if channels.dim() < 2 or not bool((channels == channels[..., :1, :]).all()):
        return None
    numbers, node = channels[..., :1, :].expand(shape).contiguous(), product
    while len(node.users) == 1 and operator_type(follower := next(iter(node.users))) in _MOVES:
        numbers, node = _moved(follower, numbers), follower
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if reader is None or operator_type(reader) != "linear" or reader.args[0] is not node:
        return None
    own = _parameters(captured, reader)
    order = numbers.reshape(-1, numbers.shape[-1])
    if own is None or not bool((order == order[:1]).all()):
        return None
    place = {int(channel): column for column, channel in enumerate(order[0])}
    heads = _different(channels[..., 0, :].reshape(-1, channels.shape[-1])).tolist()
    if sorted(place) != sorted(channel for head in heads for channel in head):
        return None
    blocks = tuple((tuple(head), tuple(place[channel] for channel in head)) for head in heads)
    return HeadPair(value, own[:1], True, blocks)


def _blocks(rows: torch.Tensor, columns: torch.Tensor) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] | None:
    """What meets along the last axis, `[…, tokens, D]` both: the same in every token; None where it is not."""
    parts = [part[..., 0, :].reshape(-1, part.shape[-1]) for part in (rows, columns)]
    alike = all(bool((part == part[..., :1, :]).all()) for part in (rows, columns))
    if not alike or parts[0].shape != parts[1].shape:
        return None
    pairs = _different(torch.cat(parts, 1))
    size = rows.shape[-1]
    used = [pairs[:, :size].flatten().tolist(), pairs[:, size:].flatten().tolist()]
    if any(len(set(each)) != len(each) for each in used):
        return None  # a head of keys that several heads of queries share
    return tuple((tuple(pair[:size]), tuple(pair[size:])) for pair in pairs.tolist())


def _different(rows: torch.Tensor) -> torch.Tensor:
    """Each row once, as whole numbers."""
    found: torch.Tensor = torch.unique(rows, dim=0)
    return found.long()


def _behind_layer(captured: CapturedModel, node: torch.fx.Node) -> tuple[tuple[str, ...], torch.Tensor] | None:
    """The linear layer that makes a factor, through moves alone, and the channel that each element comes from."""
    path: list[torch.fx.Node] = []
    while isinstance(node, torch.fx.Node) and _passes(node) and len(node.users) == 1:
        path.append(node)
        node = node.all_input_nodes[0]
    if operator_type(node) != "linear" or len(node.users) != 1:
        return None
    own = _parameters(captured, node)
    if own is None:
        return None
    shape = node.meta["val"].shape
    numbers = torch.arange(float(shape[-1])).expand(shape).contiguous()
    for step in reversed(path):
        numbers = _moved(step, numbers)
    return own, numbers


def _passes(node: torch.fx.Node) -> bool:
    kind = operator_type(node)
    alone = not any(isinstance(each, torch.fx.Node) for each in node.args[1:])
    return len(node.all_input_nodes) == 1 and alone and (kind in _MOVES or kind in _BY_A_NUMBER)


def _moved(node: torch.fx.Node, numbers: torch.Tensor) -> torch.Tensor:
    if operator_type(node) in _BY_A_NUMBER:
        return numbers
    arguments: Sequence[object] = node.args[1:]
    moved: torch.Tensor = node.target(numbers, *arguments, **node.kwargs)  # type: ignore[operator]
    return moved


def _parameters(captured: CapturedModel, layer: torch.fx.Node) -> tuple[str, ...] | None:
    """The names of a layer's weight and bias when it alone reads them."""
    nodes = [node for node in layer.args[1:3] if isinstance(node, torch.fx.Node)]
    own = all(node.name in captured.values and len(node.users) == 1 for node in nodes)
    return tuple(node.name for node in nodes) if own and nodes else None
