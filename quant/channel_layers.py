"""How layers with weights couple the channels of what they read, of their weights and of what they make."""

from __future__ import annotations

import numpy as np

from bitwright.quant.channel_flow import Flow, where
from bitwright.quant.channel_operators import Rule
from bitwright.quant.channel_strands import Strand, along, axes_of
from bitwright.quant.graph import Node, TensorRef

Operand = tuple[tuple[int, ...], list[Strand]]


def convolution(flow: Flow, node: Node) -> None:
    """Weight [out, in / groups, …]. A channel with a filter of its own takes that filter with it.

    Where groups have several channels, each group loses the same places, so that all stay of one size.
    """
    data, weight, bias = (*node.inputs, None, None)[:3]
    assert data is not None and weight is not None
    spatial, groups = flow.rank(weight) - 2, int(node.attributes.get("groups", 1))
    channel = flow.rank(data) - spatial - 1
    read, reason = _channels_of(flow, node, data, channel), f"{where(node)} reads a tensor that cannot change"
    made, summed = flow.vector(weight, 0), flow.vector(weight, 1)
    flow.stay(weight, f"{where(node)} slides over them", axes=range(2, 2 + spatial))
    if groups == 1:
        flow.tie(read, summed, reason)
    elif flow.shape(weight)[1] == 1:
        filters = None if made is None else made.reshape(groups, -1)
        flow.tie(filters, None if read is None else read[:, None], reason)
    else:
        read, made = (_alike_in_groups(flow, each, groups) for each in (read, made))
        flow.tie(None if read is None else read[: len(read) // groups], summed, reason)
    _finish(flow, node, made, bias, channel)


def transposed_convolution(flow: Flow, node: Node) -> None:
    """Weight [in, out / groups, …]."""
    data, weight, bias = (*node.inputs, None, None)[:3]
    assert data is not None and weight is not None
    spatial, groups = flow.rank(weight) - 2, int(node.attributes.get("groups", 1))
    channel = flow.rank(data) - spatial - 1
    read, reason = _channels_of(flow, node, data, channel), f"{where(node)} reads a tensor that cannot change"
    flow.stay(weight, f"{where(node)} slides over them", axes=range(2, 2 + spatial))
    flow.tie(read, flow.vector(weight, 0), reason)
    made = flow.vector(weight, 1)
    if groups > 1 and flow.shape(weight)[:2] == (groups, 1):
        made = read
    elif groups > 1:
        stays = f"{where(node)} has groups of several channels"
        flow.stay(data, stays)
        flow.stay(weight, stays)
        flow.stay(bias, stays)
        flow.give(node.outputs[0], [])
        return
    _finish(flow, node, made, bias, channel)


def linear(flow: Flow, node: Node) -> None:
    """Weight [out, in]; what runs along other axes of the data goes through."""
    data, weight, bias = (*node.inputs, None, None)[:3]
    assert data is not None and weight is not None
    read = flow.vector(data, -1)
    flow.tie(read, flow.vector(weight, -1), f"{where(node)} reads a tensor that cannot change")
    made = flow.vector(weight, 0)
    if bias is not None:
        flow.tie(made, flow.vector(bias, 0), f"{where(node)} adds a bias that cannot change")
    through = [each for each in flow.of(data) if each.shape[-1] == 1]
    flow.give(node.outputs[0], [*through, *([] if made is None else [along(made, -1, flow.rank(data))])])


def product(flow: Flow, node: Node) -> None:
    """Matrix products, […, m, k] by […, k, n]."""
    left, right = node.tensors[-2:]
    if min(flow.rank(left), flow.rank(right)) < 2:
        flow.stay_all(node, f"{where(node)} multiplies by a vector")
        return
    strands = _multiplied(flow, node, _operand(flow, left), _operand(flow, right))
    if node.op in ("addmm", "baddbmm"):
        added, result = node.tensors[0], node.outputs[0]
        reason = f"{where(node)} adds a tensor that cannot change"
        strands = flow.merged([(flow.shape(result), strands), (flow.shape(added), flow.of(added))], reason)
    flow.give(node.outputs[0], strands)


def attention(flow: Flow, node: Node) -> None:
    """Queries, keys [batch, heads, places, size], values: heads can go, all of one together."""
    query, key, value = (_operand(flow, ref) for ref in node.tensors[:3])
    if node.attributes.get("enable_gqa") or len({len(shape) for shape, _ in (query, key, value)}) > 1:
        flow.stay_all(node, f"{where(node)} shares keys between heads")
        return
    scaled = node.attributes.get("scale") is not None
    for strand in (*query[1], *key[1]):
        if axes_of(strand) == (strand.ndim - 1,) and not scaled:
            flow.channels.fix(strand, f"{where(node)} divides by the root of their number")
    turned = ((*key[0][:-2], key[0][-1], key[0][-2]), [each.swapaxes(-1, -2) for each in key[1]])
    shape = (*query[0][:-1], key[0][-2])
    weights = _multiplied(flow, node, query, turned)
    for mask in node.tensors[3:]:
        weights = flow.merged(
            [(shape, weights), (flow.shape(mask), flow.of(mask))], f"{where(node)} has a mask that cannot change"
        )
    for strand in weights:
        if strand.shape[-1] > 1:
            flow.channels.fix(strand, f"{where(node)} normalizes over them")
    weights = [strand for strand in weights if strand.shape[-1] == 1]
    flow.give(node.outputs[0], _multiplied(flow, node, (shape, weights), value))


def batch_norm(flow: Flow, node: Node) -> None:
    """Each channel of axis 1 has numbers of its own."""
    data = node.tensors[0]
    vector = flow.vector(data, 1)
    for ref in node.tensors[1:]:
        flow.tie(vector, flow.vector(ref, 0), f"{where(node)} reads a tensor that cannot change")
    flow.give(node.outputs[0], flow.of(data))


def layer_norm(flow: Flow, node: Node) -> None:
    """Mean and variance are those of all channels: the others change when one is taken out."""
    data = node.tensors[0]
    count = len(node.attributes.get("normalized_shape") or (0,))
    reason = f"{where(node)} takes statistics over them"
    for strand in flow.of(data):
        if any(size > 1 for size in strand.shape[-count:]):
            flow.channels.say_inexact(strand, reason)
    own = [(flow.shape(ref), flow.of(ref)) for ref in node.tensors]
    flow.give(node.outputs[0], flow.merged(own, f"{where(node)} meets a tensor that cannot change there"))


def group_norm(flow: Flow, node: Node) -> None:
    """Statistics of each group of channels; groups stay as many as they are and lose the same places."""
    data, groups = node.tensors[0], int(node.attributes["num_groups"])
    vector = flow.vector(data, 1)
    if vector is not None:
        flow.channels.say_inexact(vector, f"{where(node)} takes statistics over them")
        if len(vector) == groups:
            flow.channels.fix(vector, f"{where(node)} has a group for each")
    vector = _alike_in_groups(flow, vector, groups)
    for ref in node.tensors[1:]:
        flow.tie(vector, flow.vector(ref, 0), f"{where(node)} reads a tensor that cannot change")
    flow.give(node.outputs[0], flow.of(data))


def embedding(flow: Flow, node: Node) -> None:
    """Weight [words, size]: words stay, the size of their vectors may shrink."""
    weight, indices = node.tensors
    flow.stay(weight, f"{where(node)} looks them up", axes=[0])
    vector = flow.vector(weight, 1)
    if vector is not None:
        flow.give(node.outputs[0], [along(vector, -1, flow.rank(indices) + 1)])


def _channels_of(flow: Flow, node: Node, data: TensorRef, channel: int) -> Strand | None:
    places = [axis for axis in range(flow.rank(data)) if axis > channel]
    flow.stay(data, f"{where(node)} slides over them", axes=places)
    return flow.vector(data, channel)


def _alike_in_groups(flow: Flow, vector: Strand | None, groups: int) -> Strand | None:
    if vector is None:
        return None
    grouped = vector.reshape(groups, -1)
    flow.channels.unite(grouped, grouped[:1])
    return np.broadcast_to(grouped[:1], grouped.shape).ravel()


def _finish(flow: Flow, node: Node, made: Strand | None, bias: TensorRef | None, channel: int) -> None:
    """The layer's result has its output channels; so has the bias."""
    if bias is not None:
        flow.tie(made, flow.vector(bias, 0), f"{where(node)} adds a bias that cannot change")
    rank = flow.rank(node.outputs[0])
    flow.give(node.outputs[0], [] if made is None else [along(made, channel, rank)])


def _operand(flow: Flow, ref: TensorRef) -> Operand:
    return flow.shape(ref), list(flow.of(ref))


def _multiplied(flow: Flow, node: Node, left: Operand, right: Operand) -> list[Strand]:
    """What runs along a matrix product.

    A strand that runs along stacked matrices and inside of them (heads and their sizes) is collapsed to the stack:
    whole matrices can go.
    """
    rank = max(len(left[0]), len(right[0]))
    sides = [_side(flow, operand, rank) for operand in (left, right)]
    reason = f"{where(node)} multiplies by a tensor that cannot change"
    summed = [_only(flow, inner, axis) for (_, _, inner), axis in zip(sides, (rank - 1, rank - 2), strict=True)]
    flow.tie(summed[0], summed[1], reason)
    outer = flow.merged([(shape[:-2], [each[..., 0, 0] for each in stacked]) for shape, stacked, _ in sides], reason)
    kept = [_only(flow, inner, axis) for (_, _, inner), axis in zip(sides, (rank - 2, rank - 1), strict=True)]
    through = [
        along(each, axis, rank) for each, axis in zip(kept, (rank - 2, rank - 1), strict=True) if each is not None
    ]
    return [*(each[..., None, None] for each in outer), *through]


def _side(flow: Flow, operand: Operand, rank: int) -> tuple[tuple[int, ...], list[Strand], list[Strand]]:
    """The shape of an operand at the product's rank, what runs along its stack, what inside its matrices."""
    shape, strands = operand
    extra = (1,) * (rank - len(shape))
    stacked, inner = [], []
    for strand in strands:
        strand = strand.reshape(extra + strand.shape)
        outer = [axis for axis in axes_of(strand) if axis < rank - 2]
        if outer:
            stacked.append(flow.channels.collapse(strand, outer))
        else:
            inner.append(strand)
    return extra + shape, stacked, inner


def _only(flow: Flow, strands: list[Strand], axis: int) -> Strand | None:
    found = next((each for each in strands if each.shape[axis] > 1), None)
    return None if found is None else flow.channels.collapse(found, [axis]).ravel()


LAYERS: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), product),
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "linear": linear, "scaled_dot_product_attention": attention, "group_norm": group_norm, "embedding": embedding,
}  # fmt: skip
