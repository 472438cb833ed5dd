"""Scaled dot product attention that the exporter has spelled out, where the file says that it was one operator."""

from __future__ import annotations

from dataclasses import replace

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network
from bitwright.quant.onnx_import.patterns.registry import ends_in

_NAME = "scaled_dot_product_attention"


@ends_in("matmul")
def _attention(network: Network, call: Call) -> Match | None:
    """softmax(q k^T * scale + mask) v. Written by hand it stays what it is: two products and a softmax."""
    if network.origin(call).op not in ("", _NAME) or not network.origin(call).group:
        return None
    group = network.group(call)
    softmax = network.maker(call.operands[0], "softmax", "where")
    scores = network.maker(softmax.operands[0], "matmul", "add", "mul", "div") if softmax else None
    if softmax is None or scores is None or softmax not in group or scores not in group or softmax.op == "where":
        return None
    mask = None
    if scores.op == "add":
        mask = next((name for name in scores.operands[1:]), None)
        scores = network.maker(scores.operands[0], "matmul", "mul", "div")
    while scores is not None and scores.op in ("mul", "div"):
        scores = network.maker(scores.operands[0], "matmul", "mul", "div")
    if scores is None or scores not in group or len(scores.operands) != 2:
        return None
    query, key = (_root(network, group, name) for name in scores.operands)
    value = _root(network, group, call.operands[1])
    ranks = {len(network.shape(name)) for name in (query, value, call.outputs[0])}
    if len(ranks) != 1 or min(ranks) < 2 or len(network.shape(key)) < 2:
        return None
    causal = network.is_constant(mask) and _is_made_by_exporter(network, mask or "")
    attributes = {"dropout_p": 0.0, "is_causal": causal, "scale": None, "enable_gqa": False}
    mask = None if causal or mask is None else _root(network, group, mask)
    # The scale is only worth saying where it is not the usual one, which the file gives as rounded numbers.
    consumed = [other for other in group if other is not call]
    match = Match(op=_NAME, inputs=[query, key, value, mask], attributes=attributes, consumed=consumed)
    if len(network.shape(key)) != len(network.shape(query)) and network.may_replace(call, match):
        match.inputs[1] = _reshaped_key(network, match, key, scores.operands[1])
    return match


def _reshaped_key(network: Network, match: Match, key: str, turned: str) -> str:
    """An optimizer has drawn a reshape of the keys into the group: its first call stays, as that reshape."""
    first = next(call for call in match.consumed if key in call.operands)
    match.consumed.remove(first)
    *batch, depth, count = network.shape(turned)
    kind = network.draft.values.types[first.outputs[0]]
    shape = (*batch, count, depth)
    network.draft.values.types[first.outputs[0]] = replace(kind, shape=shape)
    first.op, first.attributes = "reshape", {"shape": tuple(-1 if size is None else size for size in shape)}
    return first.outputs[0]


def _root(network: Network, group: list[Call], name: str) -> str:
    """The value from outside that a chain of scalings and moves inside the group begins with."""
    call = network.maker(name)
    while call is not None and call in group and call.op in ("mul", "permute", "reshape", "where", "to"):
        name = call.operands[0]
        call = network.maker(name)
    return name


def _is_made_by_exporter(network: Network, name: str) -> bool:
    """A mask that is no tensor of the network: the triangle of `is_causal`."""
    shape = network.shape(name)
    if network.draft.is_own:
        return network.draft.is_inner(name)
    return len(shape) == 2 and name.startswith(("val_", "const"))
