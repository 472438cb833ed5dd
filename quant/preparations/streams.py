"""Streams between convolutions, or between linear layers, that are sums alone: their channels may be rotated as one.

MobileNetV2's bottlenecks are such: what a project convolution gives, with what earlier ones gave added to it, is read
by expand convolutions without an activation between. With an orthogonal R over the channels

    sum_i R^T W_i x_i = R^T (sum_i W_i x_i),          V y = (V R) (R^T y)

exactly, whatever a reader's taps and zero padding (a rotated zero is zero), as long as no layer is grouped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.graph import CONVOLUTIONS
from bitwright.quant.rewrite import arguments, shape_of

_LAYERS = CONVOLUTIONS | {"linear"}
# They compute each channel's pixels from the channel's own, linearly.
_SPATIAL = frozenset({"avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"})


@dataclass
class Stream:
    """Tensors whose channels are one.

    Attributes:
        size: how many channels.
        makers: names of the weight and, where there is one, the bias of each layer whose rows they are.
        readers: names of the weights whose columns they are.
        sums: how many sums are among them.
        why_not: why they cannot be rotated; empty where they can.
        where: the first of them, for messages.
    """

    size: int
    where: str
    makers: list[tuple[str, ...]] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    sums: int = 0
    why_not: str = ""


def find_streams(captured: CapturedModel) -> list[Stream]:
    """Every stream of which a layer gives a part, also those that cannot be rotated."""
    known: set[torch.fx.Node] = set()
    found = []
    for node in captured.fx_graph.nodes:
        if operator_type(node) in _LAYERS and node not in known:
            found.append(_stream(captured, node, known))
    return found


def _stream(captured: CapturedModel, first: torch.fx.Node, known: set[torch.fx.Node]) -> Stream:
    """The stream to which a layer's result belongs, as far as it reaches; `known` gets its tensors."""
    convolutions = operator_type(first) in CONVOLUTIONS
    stream = Stream(size=first.meta["val"].shape[1 if convolutions else -1], where=first.name)
    seen: set[torch.fx.Node] = set()
    waiting = [first]
    reasons: list[str] = []
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            reasons += _makers(captured, node, stream, waiting, convolutions=convolutions)
            if _belongs(node, convolutions=convolutions):
                reasons += _readers(captured, node, stream, waiting, convolutions=convolutions)
    known |= seen
    stream.why_not = next(iter(reasons), "" if stream.readers else "no layer reads it")
    return stream


def _belongs(node: torch.fx.Node, *, convolutions: bool) -> bool:
    """Whether a tensor is a part of a stream: what a layer gives, a sum, or what resizes one."""
    kind = operator_type(node)
    layers = CONVOLUTIONS | _SPATIAL if convolutions else frozenset({"linear"})
    return kind in layers or _is_sum(node)


def _makers(
    captured: CapturedModel, node: torch.fx.Node, stream: Stream, waiting: list[torch.fx.Node], *, convolutions: bool
) -> Iterator[str]:
    """Notes who makes a tensor; reasons where that is not known to be exact."""
    kind = operator_type(node)
    if not _belongs(node, convolutions=convolutions):
        yield f"{kind or 'an input'} is among what is added"
    elif kind not in _LAYERS:
        stream.sums += _is_sum(node)
        waiting += node.all_input_nodes
    elif (own := _own(captured, node)) is not None:
        stream.makers.append(own)
    else:
        yield f"{node.name} shares its weights, or is grouped"


def _readers(
    captured: CapturedModel, node: torch.fx.Node, stream: Stream, waiting: list[torch.fx.Node], *, convolutions: bool
) -> Iterator[str]:
    """Notes who reads a tensor of the stream; likewise."""
    layers = CONVOLUTIONS if convolutions else frozenset({"linear"})
    for user in node.users:
        kind = operator_type(user)
        if kind not in layers:
            if _belongs(user, convolutions=convolutions):
                waiting.append(user)
            else:
                yield f"{kind} reads it" if kind else "it is a result of the network"
        elif (own := _own(captured, user)) is not None and user.all_input_nodes.count(node) == 1:
            stream.readers.append(own[0])
        else:
            yield f"{user.name}, which reads it, shares its weights, or is grouped"


def _is_sum(node: torch.fx.Node) -> bool:
    parts = [shape_of(part) for part in node.args[:2]]
    return operator_type(node) == "add" and None not in parts and parts[0] == parts[1] == shape_of(node)


def _own(captured: CapturedModel, layer: torch.fx.Node) -> tuple[str, ...] | None:
    """The names of an ungrouped layer's weight and bias when it alone reads them."""
    nodes = [node for node in layer.args[1:3] if isinstance(node, torch.fx.Node)]
    alone = all(node.name in captured.values and len(node.users) == 1 for node in nodes)
    grouped = operator_type(layer) != "linear" and arguments(layer)["groups"] != 1
    return tuple(node.name for node in nodes) if alone and nodes and not grouped else None


def streams_left_alone(captured: CapturedModel) -> Iterator[tuple[str, str]]:
    """The sums that cannot be rotated, and why."""
    return (
        (f"the sum behind {each.where}", each.why_not) for each in find_streams(captured) if each.sums and each.why_not
    )
