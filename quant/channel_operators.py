"""What each operator makes of the channels that run along its operands; an operator not listed lets none go.

Layers with weights are in `channel_layers.py`. Each function reads one node and gives its results' strands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitwright.quant.channel_flow import Flow, where
from bitwright.quant.channel_strands import Strand, along, axes_of, reshaped
from bitwright.quant.graph import Node, TensorRef

Rule = Callable[[Flow, Node], None]

_PLACE_BY_PLACE = frozenset(
    """
    relu leaky_relu hardtanh relu6 silu gelu sigmoid hardsigmoid hardswish tanh elu selu celu mish softplus exp log sqrt
    rsqrt neg abs pow square clamp clamp_min clamp_max erf reciprocal round floor ceil sign sin cos to type_as clone
    contiguous dropout add sub rsub mul div maximum minimum where addcmul addcdiv lerp masked_fill logaddexp hardshrink
    softshrink tanhshrink log_sigmoid softsign threshold
    """.split()  # noqa: SIM905 - a list of sixty strings is harder to read
)
_OVER_PLACES = (
    *("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "upsample_linear"),
    *("upsample_bilinear", "upsample_bicubic", "upsample_trilinear", "_upsample_nearest_exact"),
)


def elementwise(flow: Flow, node: Node) -> None:
    """Operands broadcast against each other; what runs along the same axis of two of them is the same."""
    reason = f"{where(node)} meets a tensor that cannot change there"
    operands = [(flow.shape(ref), flow.of(ref)) for ref in node.tensors]
    flow.give(node.outputs[0], flow.merged(operands, reason))


def prelu(flow: Flow, node: Node) -> None:
    """One slope for each channel of axis 1, or one for all."""
    data, slope = node.tensors
    if flow.shape(slope) != (1,):
        flow.tie(flow.vector(data, 1), flow.vector(slope, 0), f"{where(node)} has a slope for each")
    flow.give(node.outputs[0], flow.of(data))


def over_places(flow: Flow, node: Node) -> None:
    """Pooling and resizing: the last axes change, what runs along others stays where it is."""
    data = node.tensors[0]
    spatial = next((int(sign) for sign in node.op if sign.isdigit()), flow.rank(data))
    _pass_unless(flow, node, data, set(range(flow.rank(data) - spatial, flow.rank(data))))


def padded(flow: Flow, node: Node) -> None:
    """`pad` counts pairs from the last axis."""
    data, pairs = node.tensors[0], list(node.attributes.get("pad") or ())
    touched = {flow.rank(data) - 1 - i // 2 for i, amount in enumerate(pairs) if amount}
    _pass_unless(flow, node, data, touched)


def normalized(flow: Flow, node: Node) -> None:
    """softmax: probabilities of the others change when one is taken out."""
    data = node.tensors[0]
    axis = int(node.attributes["dim"]) % flow.rank(data)
    for strand in flow.of(data):
        if strand.shape[axis] > 1:
            flow.channels.say_inexact(strand, f"{where(node)} normalizes over them")
    flow.give(node.outputs[0], flow.of(data))


def reduced(flow: Flow, node: Node) -> None:
    """mean, sum, amax, …: what is reduced over no longer runs along the result."""
    data, result = node.tensors[0], node.outputs[0]
    rank = flow.rank(data)
    given = node.attributes.get("dim")
    given = [given] if isinstance(given, int) else list(given or range(rank))
    axes = {int(axis) % rank for axis in given}
    kept = []
    for strand in flow.of(data):
        if axes & set(axes_of(strand)):
            flow.channels.fix(strand, f"{where(node)} reduces over them")
        elif flow.rank(result) == rank:
            kept.append(strand)
        else:
            kept.append(strand.squeeze(tuple(sorted(axes))))
    flow.give(result, kept)


def reshape(flow: Flow, node: Node) -> None:
    """view, reshape, flatten, squeeze, unsqueeze: by the shapes before and after."""
    data, result = node.tensors[0], node.outputs[0]
    before, after = flow.shape(data), flow.shape(result)
    found: list[Strand] = []
    for strand in flow.of(data):
        new = reshaped(strand, before, after)
        if new is None or any(set(axes_of(new)) & set(axes_of(each)) for each in found):
            flow.stay(data, f"{where(node)} mixes axes that channels run along")
            return
        found.append(new)
    flow.give(result, found)


def permute(flow: Flow, node: Node) -> None:
    """permute, transpose, t, movedim-like."""
    data, rank = node.tensors[0], flow.rank(node.tensors[0])
    if node.op == "permute":
        order = [int(axis) % rank for axis in node.attributes["dims"]]
    else:
        order = list(range(rank))
        one, other = (node.attributes.get(name, default) for name, default in (("dim0", 0), ("dim1", 1)))
        order[one], order[other] = order[other], order[one]
    flow.give(node.outputs[0], [strand.transpose(order) for strand in flow.of(data)])


def expand(flow: Flow, node: Node) -> None:
    """Axes of size 1 grow, new ones come in front."""
    extra = flow.rank(node.outputs[0]) - flow.rank(node.tensors[0])
    flow.give(node.outputs[0], [each.reshape((1,) * extra + each.shape) for each in flow.of(node.tensors[0])])


def repeat(flow: Flow, node: Node) -> None:
    """Only along axes where nothing runs."""
    data, counts = node.tensors[0], [int(each) for each in node.attributes["repeats"]]
    extra = len(counts) - flow.rank(data)
    touched = {axis - extra for axis, count in enumerate(counts) if count != 1 and axis >= extra}
    _pass_unless(flow, node, data, touched, extra=extra)


def roll(flow: Flow, node: Node) -> None:
    """Moves along axes where nothing runs."""
    data = node.tensors[0]
    _pass_unless(flow, node, data, {int(axis) % flow.rank(data) for axis in node.attributes["dims"]})


def concatenate(flow: Flow, node: Node) -> None:
    """Along the joint axis one after the other; along the others operands are the same."""
    rank = flow.rank(node.outputs[0])
    axis = int(node.attributes.get("dim", 0)) % rank
    reason = f"{where(node)} joins them with channels that cannot change"
    if any(flow.rank(ref) != rank for ref in node.tensors):  # an empty tensor is allowed to have another rank
        flow.stay_all(node, reason)
        return
    pieces = [flow.vector(ref, axis) for ref in node.tensors]
    others = []
    for ref in node.tensors:
        shape = (*flow.shape(ref)[:axis], 1, *flow.shape(ref)[axis + 1 :])
        others.append((shape, [each for each in flow.of(ref) if each.shape[axis] == 1]))
    strands = flow.merged(others, reason)
    if any(piece is not None for piece in pieces):
        strands.append(along(np.concatenate(_filled(flow, node, axis, pieces)), axis, rank))
    flow.give(node.outputs[0], strands)


def _filled(flow: Flow, node: Node, axis: int, pieces: list[Strand | None]) -> list[Strand]:
    filled = []
    for ref, piece in zip(node.tensors, pieces, strict=True):
        if piece is None:
            piece = flow.channels.fresh([flow.shape(ref)[axis]])
            flow.channels.fix(piece, f"{where(node)} joins a tensor that cannot change")
        filled.append(piece)
    return filled


def split(flow: Flow, node: Node) -> None:
    """Equal parts are cut at shares of the whole: they lose the same channels, or the cuts would move."""
    data = node.tensors[0]
    axis = int(node.attributes.get("dim", 0)) % flow.rank(data)
    vector = flow.vector(data, axis)
    sizes = [flow.shape(ref)[axis] for ref in node.outputs]
    others = [each for each in flow.of(data) if each.shape[axis] == 1]
    if vector is None:
        for ref in node.outputs:
            flow.give(ref, others)
        return
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    if len(set(sizes)) == 1:
        for part in parts[1:]:
            flow.channels.unite(parts[0], part)
    for ref, part in zip(node.outputs, parts, strict=True):
        flow.give(ref, [*others, along(part, axis, flow.rank(data))])


def cut(flow: Flow, node: Node) -> None:
    """slice, select, unbind: places along one axis."""
    data = node.tensors[0]
    axis = int(node.attributes.get("dim") or 0) % flow.rank(data)
    for index, ref in enumerate(node.outputs):
        strands = []
        for strand in flow.of(data):
            if node.op == "slice":
                if strand.shape[axis] > 1:
                    strand = strand[(slice(None),) * axis + (_range(node),)]
            else:
                place = index if node.op == "unbind" else int(node.attributes["index"])
                strand = strand[(slice(None),) * axis + (place if strand.shape[axis] > 1 else 0,)]
            strands.append(strand)
        flow.give(ref, strands)


def _range(node: Node) -> slice:
    return slice(*(node.attributes.get(name) for name in ("start", "end", "step")))


def glu(flow: Flow, node: Node) -> None:
    """The first half times the sigmoid of the second."""
    data = node.tensors[0]
    axis = int(node.attributes.get("dim", -1)) % flow.rank(data)
    vector = flow.vector(data, axis)
    strands = [each for each in flow.of(data) if each.shape[axis] == 1]
    if vector is not None:
        first, second = np.split(vector, 2)
        flow.channels.unite(first, second)
        strands.append(along(first, axis, flow.rank(data)))
    flow.give(node.outputs[0], strands)


def pixel_shuffle(flow: Flow, node: Node) -> None:
    """[N, C r², H, W] to [N, C, r H, r W]: the r² channels of one place are one."""
    data, factor = node.tensors[0], int(node.attributes["upscale_factor"])
    vector = flow.vector(data, -3)
    flow.stay(data, f"{where(node)} moves them", axes=(-1, -2))
    if vector is not None:
        whole = vector.reshape(-1, factor * factor)
        flow.channels.unite(whole, whole[:, :1])
        flow.give(node.outputs[0], [along(whole[:, 0], -3, flow.rank(data))])


def channel_shuffle(flow: Flow, node: Node) -> None:
    """Groups and the channels of a group change places."""
    data, groups = node.tensors[0], int(node.attributes["groups"])
    vector = flow.vector(data, 1)
    if vector is not None:
        grouped = vector.reshape(groups, -1)
        flow.channels.unite(grouped, grouped[:1])
        flow.give(node.outputs[0], [along(grouped.T.ravel(), 1, flow.rank(data))])


def sampled(flow: Flow, node: Node) -> None:
    """grid_sample: channels of axis 1 stay where they are."""
    data, grid = node.tensors[:2]
    flow.stay(grid, f"{where(node)} takes them as places")
    _pass_unless(flow, node, data, set(range(2, flow.rank(data))))


def _pass_unless(flow: Flow, node: Node, data: TensorRef, touched: set[int], *, extra: int = 0) -> None:
    """Strands go through; those along axes that the operator touches stay."""
    kept = []
    for strand in flow.of(data):
        if touched & set(axes_of(strand)):
            flow.channels.fix(strand, f"{where(node)} moves them")
        else:
            kept.append(strand.reshape((1,) * extra + strand.shape))
    flow.give(node.outputs[0], kept)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_PLACE_BY_PLACE, elementwise),
    **{f"{name}{rank}d": over_places for name in _OVER_PLACES for rank in (1, 2, 3)},
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), over_places),
    **dict.fromkeys(("pad", "constant_pad_nd"), padded),
    **{f"{name}_pad{rank}d": over_places for name in ("reflection", "replication") for rank in (1, 2, 3)},
    **dict.fromkeys(("softmax", "log_softmax"), normalized),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "norm", "linalg_vector_norm"), reduced),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), reshape),
    **dict.fromkeys(("permute", "transpose", "t"), permute),
    **dict.fromkeys(("slice", "select", "unbind"), cut),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), split),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), sampled),
    "prelu": prelu, "expand": expand, "repeat": repeat, "roll": roll, "cat": concatenate, "glu": glu,
    "pixel_shuffle": pixel_shuffle, "channel_shuffle": channel_shuffle,
}  # fmt: skip
