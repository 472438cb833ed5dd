"""Folds a pad by zeros into the convolution or pool that reads it.

The layer's own padding is symmetric. Where the pad is not, the shorter side is padded as far as the longer one, and
the kernel gets rows of zeros at that end so that every tap meets the pixel that it met before.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, pair, shape_of


def fold_pad(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Folds the pad at `at` into every `conv2d` that reads it; exact."""
    edit = Editor(captured, at)
    node = edit.at
    given = arguments(node) if is_call(node, "pad", "constant_pad_nd") else {}
    if not given or given.get("mode", "constant") != "constant" or given.get("value"):
        return Refused(f"{operator_type(node)} does not pad with zeros")
    amounts = [*given["pad"], *[0] * 4]
    left, right, top, bottom = amounts[:4]
    if any(amounts[4:]) or min(amounts) < 0 or len(shape_of(node) or ()) != 4:
        return Refused("it pads or crops other axes than an image's height and width")
    readers = list(node.users)
    if not readers or not all(is_call(reader, "conv2d") and reader.args[0] is node for reader in readers):
        return Refused("not every reader is a convolution")
    for conv in readers:
        of = arguments(conv)
        weight = edit.value(of["weight"])
        if weight is None or isinstance(of["padding"], str):
            return Refused("a reader's weight is computed, or its padding is given by name")
        own, stride, dilation = pair(of["padding"]), pair(of["stride"]), pair(of["dilation"])
        if any(own) and (top, left) != (bottom, right):
            return Refused("a reader pads, too, and this pad is not symmetric")
        if (top, left) != (bottom, right) and dilation != (1, 1):
            return Refused("the pad is not symmetric and a reader is dilated")
        padding = [max(top, bottom), max(left, right)]
        # Rows of zeros: in front where padding was added in front, behind where it was added behind.
        front, back = ([padding[0] - top, padding[1] - left], [padding[0] - bottom, padding[1] - right])
        # A row behind reads one pixel further, so that the last window must not have used up the image.
        weight_node: Any = of["weight"]
        if any(front) or any(back):
            wide = F.pad(weight, (front[1], back[1], front[0], back[0]))
            weight_node = edit.constant(wide, "padded", of["weight"])
        edit.at = conv
        total = [pad + mine for pad, mine in zip(padding, own, strict=True)]
        made = edit.call(
            aten.conv2d.default, given["self"], weight_node, of["bias"], [*stride], total, [*dilation], of["groups"]
        )
        if shape_of(made) != shape_of(conv):
            return Refused("the padded kernel gives another size")
        edit.replace(conv, made)
    return edit.finish()
