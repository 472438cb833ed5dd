"""Writes linear layers between two transposes as 1x1 convolutions, which makes both transposes go.

`[N, C, H, W]` is permuted to `[N, H, W, C]` so that a linear layer finds its features last, and back. A 1x1 convolution
finds them where they are. So it does in `[N, C, W]`, as token-mixing layers transpose it (Tolstikhin et al. 2021,
MLP-Mixer): read as images of height 1. Elementwise operators between the layers stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.elementwise import ELEMENTWISE
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.passes.merge_transposes import permutation
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call

# Channels to the end, and the way back, of images and of rows.
_WAYS = (([0, 2, 3, 1], [0, 3, 1, 2]), ([0, 2, 1], [0, 2, 1]))


def linear_as_conv(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites what ends in the transpose at `at`, or the linear layer at `at` and what follows up to one; exact."""
    edit = Editor(captured, at)
    end = edit.at
    while permutation(end) is None:
        if not is_call(end, "linear", *ELEMENTWISE) or len(end.users) != 1:
            return Refused("no transpose back to channels first follows")
        end = next(iter(end.users))
    edit.at = end
    to_last = next((there for there, back in _WAYS if back == permutation(end)), None)
    if to_last is None:
        return Refused(f"{operator_type(end)} does not bring channels to the front")
    chain: list[torch.fx.Node] = []
    node: Any = end.args[0]
    while is_call(node, "linear", *ELEMENTWISE) and len(node.users) == 1:
        chain.insert(0, node)
        node = node.args[0]
    if permutation(node) != to_last or not any(is_call(each, "linear") for each in chain):
        return Refused("there is not just linear layers and elementwise operators between two transposes")
    value: Any = node.args[0]
    rows = len(to_last) == 3
    if rows:
        value = edit.call(aten.unsqueeze.default, value, 2)
    for each in chain:
        if not is_call(each, "linear"):
            value = edit.call(each.target, value, *each.args[1:], **each.kwargs)
            continue
        given = arguments(each)
        weight = edit.value(given["weight"])
        if weight is None:
            return Refused("a linear layer's weight is computed")
        kernel = edit.constant(weight[:, :, None, None], "as_conv", given["weight"])
        value = edit.call(aten.conv2d.default, value, kernel, given["bias"])
    edit.replace(end, edit.call(aten.squeeze.dim, value, 2) if rows else value)
    return edit.finish()
