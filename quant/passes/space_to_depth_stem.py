"""Writes a strided convolution of few channels as a convolution with stride 1 of `stride²` times as many.

`pixel_unshuffle(x, s)` puts pixel `(s i + a, s j + b)` of channel `c` into channel `c s² + a s + b` at `(i, j)`. With
the kernel padded in front so that its taps start at a multiple of `s`, and at its end to a multiple of `s`, each block
of `s x s` taps becomes one tap of the new kernel. The products are the same; those with padded zeros are added.
"""

from __future__ import annotations

from typing import Any

import torch.fx
import torch.nn.functional as F

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, pair, shape_of


def space_to_depth_stem(captured: CapturedModel, at: str, *, unshuffle: bool = True) -> CapturedModel | Refused:
    """Rewrites the convolution at `at`; exact.

    Args:
        captured: the network.
        at: the convolution's node.
        unshuffle: call `pixel_unshuffle`; else its reshapes and its transpose are written out.
    """
    edit = Editor(captured, at)
    conv = edit.at
    operand: Any = conv.args[0]
    shape, result = shape_of(operand), shape_of(conv)
    if shape is None or result is None or not is_call(conv, "conv2d"):
        return Refused(f"{operator_type(conv)} is no convolution of an image of known size")
    given = arguments(conv)
    weight = edit.value(given["weight"])
    if isinstance(given["padding"], str):
        return Refused("its padding is given by name")
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
    packed = edit.call(aten.pixel_unshuffle.default, operand, s) if unshuffle else _unshuffled(edit, operand, shape, s)
    # Whole blocks in front and behind give results at the end that the strided convolution never made.
    sizes = zip(shape[-2:], blocks, new_weight.meta["val"].shape[-2:], result[-2:], strict=True)
    surplus = [n // s + 2 * block - kernel + 1 - want for n, block, kernel, want in sizes]
    behind = [block - more for block, more in zip(blocks, surplus, strict=True)]
    if min(behind) < 0:
        return Refused("the convolution leaves out more at the end of the image than a block")
    if behind != blocks:
        packed = edit.call(aten.constant_pad_nd.default, packed, [blocks[1], behind[1], blocks[0], behind[0]], 0.0)
        blocks = [0, 0]
    made = edit.call(aten.conv2d.default, packed, new_weight, given["bias"], [1, 1], blocks)
    edit.replace(conv, made)
    return edit.finish()


def _unshuffled(edit: Editor, image: torch.fx.Node, shape: tuple[int, ...], s: int) -> torch.fx.Node:
    """`pixel_unshuffle` as reshapes around a transpose."""
    n, c, h, w = shape
    blocks = edit.call(aten.reshape.default, image, [n, c, h // s, s, w // s, s])
    inside = edit.call(aten.permute.default, blocks, [0, 1, 3, 5, 2, 4])
    return edit.call(aten.reshape.default, inside, [n, c * s * s, h // s, w // s])
