"""Writes a strided convolution of few channels as a convolution with stride 1 of `stride²` times as many.

`pixel_unshuffle(x, s)` puts pixel `(s i + a, s j + b)` of channel `c` into channel `c s² + a s + b` at `(i, j)`. With
the kernel padded in front so that its taps start at a multiple of `s`, and at its end to a multiple of `s`, each block
of `s x s` taps becomes one tap of the new kernel. The products are the same; those with padded zeros are added.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, pair, shape_of


def space_to_depth_stem(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the convolution at `at`; exact."""
    edit = Editor(captured, at)
    conv = edit.at
    operand: Any = conv.args[0]
    shape, result = shape_of(operand), shape_of(conv)
    if shape is None or result is None or not is_call(conv, "conv2d"):
        return Refused(f"{operator_type(conv)} is no convolution of an image of known size")
    given = arguments(conv)
    weight = edit.value(given["weight"])
    stride, padding = pair(given["stride"]), pair(given["padding"])
    if weight is None or given["groups"] != 1 or set(pair(given["dilation"])) != {1}:
        return Refused("its weight is computed, grouped or dilated")
    s = stride[0]
    if s == 1 or stride[1] != s:
        return Refused(f"its stride is {stride[0]} x {stride[1]}, where one above 1 for both axes is needed")
    if any(size % s for size in shape[-2:]):
        return Refused(f"the image of {shape[-2]} x {shape[-1]} is no multiple of the stride")
    # Padding becomes whole blocks; the kernel moves by what they are too large.
    blocks = [-(-pad // s) for pad in padding]
    front = [s * block - pad for block, pad in zip(blocks, padding, strict=True)]
    back = [-(size + lead) % s for size, lead in zip(weight.shape[-2:], front, strict=True)]
    folded = F.pixel_unshuffle(F.pad(weight, (front[1], back[1], front[0], back[0])), s)
    new_weight = edit.constant(folded, "space_to_depth", given["weight"])
    packed = edit.call(aten.pixel_unshuffle.default, operand, s)
    made = edit.call(aten.conv2d.default, packed, new_weight, given["bias"], [1, 1], blocks)
    rows, columns = shape_of(made)[-2:]  # type: ignore[index]
    for axis, (have, want) in enumerate(((rows, result[-2]), (columns, result[-1]))):
        if have < want:
            return Refused("the windows at the end of the image reach beyond whole blocks")
        if have > want:  # whole blocks at the end give results that the strided convolution never made
            made = edit.call(aten.slice.Tensor, made, 2 + axis, 0, want)
    edit.replace(conv, made)
    return edit.finish()
