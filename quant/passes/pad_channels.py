"""Pads the channels between two layers with zeros, to a multiple that the hardware packs.

The first layer gets filters of zeros, the second reads zero weights there: whatever activations or pools make of the
padded channels, they add nothing.
"""

from __future__ import annotations

from typing import Any

import torch.fx
import torch.nn.functional as F

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.passes.merge_transposes import ELEMENTWISE
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, shape_of

_LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
# Each channel by itself, and finite for what a layer of zeros gives.
_BY_CHANNEL = (ELEMENTWISE - {"log", "sqrt", "rsqrt", "reciprocal"}) | {
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
}


def pad_channels(captured: CapturedModel, at: str, *, multiple: int) -> CapturedModel | Refused:
    """Pads the input channels of the layer at `at` to a multiple of `multiple`; exact.

    When another layer makes them, both are padded. When they are the network's input, zeros are added to it.
    """
    edit = Editor(captured, at)
    layer = edit.at
    if not is_call(layer, *_LAYERS):
        return Refused(f"{operator_type(layer)} is no layer whose channels could be padded")
    given = arguments(layer)
    weight = edit.value(given["weight"])
    if weight is None or given.get("groups", 1) != 1:
        return Refused("its weight is computed or grouped")
    more = -int(weight.shape[1]) % multiple
    if not more:
        return Refused(f"its {weight.shape[1]} input channels are a multiple of {multiple}")
    maker = _maker(edit, layer)
    if isinstance(maker, Refused):
        if not _is_input(given["input"]):
            return maker
        made = _padded_input(edit, given["input"], layer, more)
    else:
        made = _padded_maker(edit, maker, layer, more)
    ends = [0, 0] * (weight.dim() - 2) + [0, more]
    new_weight = edit.constant(F.pad(weight, ends), f"padded{multiple}", given["weight"])
    edit.replace(layer, edit.call(layer.target, made, new_weight, *layer.args[2:], **layer.kwargs))
    return edit.finish()


def _maker(edit: Editor, layer: torch.fx.Node) -> torch.fx.Node | Refused:
    """The layer that makes the channels, through operators that work on each channel by itself."""
    node: Any = layer.args[0]
    linear = is_call(layer, "linear")
    while is_call(node, *_BY_CHANNEL) and len(node.users) == 1 and len(node.all_input_nodes) == 1:
        if linear and not is_call(node, *ELEMENTWISE):
            return Refused("between the two layers, channels do not lie on the same axis")
        node = node.args[0]
    if not is_call(node, *_LAYERS) or is_call(node, "linear") != linear:
        return Refused(f"its channels are made by {operator_type(node) or 'an argument'}, which cannot make more")
    given = arguments(node)
    if len(node.users) != 1 or given.get("groups", 1) != 1 or edit.value(given["weight"]) is None:
        return Refused("the layer before it is grouped, has a computed weight or other readers")
    if given["bias"] is not None and edit.value(given["bias"]) is None:
        return Refused("the layer before it has a computed bias")
    return node  # type: ignore[no-any-return]


def _padded_maker(edit: Editor, maker: torch.fx.Node, layer: torch.fx.Node, more: int) -> torch.fx.Node:
    given = arguments(maker)
    weight, bias = edit.value(given["weight"]), edit.value(given["bias"])
    assert weight is not None  # _maker has looked
    wide = F.pad(weight, [0, 0] * (weight.dim() - 1) + [0, more])
    new_bias = None if bias is None else edit.constant(F.pad(bias, [0, more]), "padded", given["bias"])
    chain: list[torch.fx.Node] = []
    node: Any = layer.args[0]
    while node is not maker:
        chain.insert(0, node)
        node = node.args[0]
    new_weight = edit.constant(wide, "padded", given["weight"])
    value = edit.call(maker.target, maker.args[0], new_weight, new_bias, *maker.args[3:], **maker.kwargs)
    for each in chain:
        value = edit.call(each.target, value, *each.args[1:], **each.kwargs)
    return value


def _is_input(node: Any) -> bool:
    return isinstance(node, torch.fx.Node) and node.op == "placeholder"


def _padded_input(edit: Editor, x: torch.fx.Node, layer: torch.fx.Node, more: int) -> torch.fx.Node:
    axes_behind = 0 if is_call(layer, "linear") else len(shape_of(x) or ()) - 2
    return edit.call(aten.constant_pad_nd.default, x, [*[0, 0] * axes_behind, 0, more], 0.0)
