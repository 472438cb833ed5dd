"""Pads the channels between two layers with zeros, to a multiple that the hardware packs.

The first layer gets filters of zeros, the second reads zero weights there: whatever activations or pools make of the
padded channels, they add nothing.
"""

from __future__ import annotations

from typing import Any

import torch.fx
import torch.nn.functional as F

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.elementwise import ELEMENTWISE
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, is_call

_LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
# Finite for what a filter of zeros gives.
_FINITE = ELEMENTWISE - {"log", "sqrt", "rsqrt", "reciprocal"}
_POOLS = frozenset(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])


def pad_channels(captured: CapturedModel, at: str, *, multiple: int) -> CapturedModel | Refused:
    """Pads the channels that the layer at `at` makes for another one to a multiple of `multiple`; exact."""
    edit = Editor(captured, at)
    maker = edit.at
    if not is_call(maker, *_LAYERS):
        return Refused(f"{operator_type(maker)} is no layer whose channels could be padded")
    given = arguments(maker)
    weight, bias = edit.value(given["weight"]), edit.value(given["bias"])
    if weight is None or (given["bias"] is not None and bias is None) or given.get("groups", 1) != 1:
        return Refused("its weight or bias is computed, or it is grouped")
    more = -int(weight.shape[0]) % multiple
    if not more:
        return Refused(f"its {weight.shape[0]} channels are a multiple of {multiple}")
    between = _up_to_layer(maker)
    if isinstance(between, Refused):
        return between
    *between, reader = between
    reads = arguments(reader)
    read_weight = edit.value(reads["weight"])
    if read_weight is None or reads.get("groups", 1) != 1:
        return Refused("the layer behind it is grouped or has a computed weight")
    new_bias = None if bias is None else edit.constant(F.pad(bias, [0, more]), "padded", given["bias"])
    wide = F.pad(weight, [0, 0] * (weight.dim() - 1) + [0, more])
    new_weight = edit.constant(wide, "padded", given["weight"])
    value = edit.call(maker.target, maker.args[0], new_weight, new_bias, *maker.args[3:], **maker.kwargs)
    for each in between:
        edit.at = each
        value = edit.call(each.target, value, *each.args[1:], **each.kwargs)
    edit.at = reader
    read = F.pad(read_weight, [0, 0] * (read_weight.dim() - 2) + [0, more])
    new_read = edit.constant(read, "padded", reads["weight"])
    edit.replace(reader, edit.call(reader.target, value, new_read, *reader.args[2:], **reader.kwargs))
    return edit.finish()


def _up_to_layer(maker: torch.fx.Node) -> list[torch.fx.Node] | Refused:
    """The operators behind a layer that work on each channel by itself, and the layer that reads them."""
    found: list[torch.fx.Node] = []
    node: Any = maker
    linear = is_call(maker, "linear")
    by_channel = _FINITE if linear else _FINITE | _POOLS  # pools work on the last axes, which a linear layer fills
    while len(node.users) == 1:
        node = next(iter(node.users))
        found.append(node)
        if is_call(node, *_LAYERS):
            same_axis = is_call(node, "linear") == linear
            return found if same_axis else Refused("the layer behind it reads channels from another axis")
        if not is_call(node, *by_channel) or len(node.all_input_nodes) != 1:
            return Refused(f"its channels pass {operator_type(node) or 'a result of the network'} before another layer")
    return Refused("several operators read its channels")
