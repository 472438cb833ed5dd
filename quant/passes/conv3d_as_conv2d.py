"""Writes a convolution over volumes as one over images.

A kernel `[k, 1, 1]` works on depth alone: `[N, C, D, H W]` is an image for it, and only shapes change. Else each depth
slice of the result is an image's convolution of `k` depth slices of the input: those are put into the channels, and
depth joins the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, pair, shape_of


def conv3d_as_conv2d(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the convolution at `at`; exact."""
    edit = Editor(captured, at)
    conv = edit.at
    shape, result = shape_of(conv.args[0]) if conv.args else None, shape_of(conv)
    if not is_call(conv, "conv3d") or shape is None or result is None or len(shape) != 5:
        return Refused(f"{operator_type(conv)} is no convolution of batched volumes of known size")
    given = arguments(conv)
    weight = edit.value(given["weight"])
    if weight is None:
        return Refused("its weight is computed")
    if isinstance(given["padding"], str):
        return Refused("its padding is given by name")
    settings = {name: pair(given[name], 3) for name in ("stride", "padding", "dilation")}
    if tuple(weight.shape[3:]) == (1, 1) and settings["stride"][1:] == (1, 1) and settings["padding"][1:] == (0, 0):
        made = _along_depth(edit, given, weight, settings, shape, result)
    elif given["groups"] == 1 or weight.shape[2] == 1:
        made = _slice_by_slice(edit, given, weight, settings, shape, result)
    else:
        return Refused("a grouped kernel over several depth slices would mix the groups' channels")
    edit.replace(conv, made)
    return edit.finish()


def _along_depth(
    edit: Editor,
    given: dict[str, Any],
    weight: torch.Tensor,
    settings: dict[str, tuple[int, ...]],
    shape: tuple[int, ...],
    result: tuple[int, ...],
) -> torch.fx.Node:
    n, c, d, h, w = shape
    flat = edit.call(aten.reshape.default, given["input"], [n, c, d, h * w])
    plane = edit.constant(weight[..., 0], "as_2d", given["weight"])
    stride, padding, dilation = ([settings[name][0], rest] for name, rest in _BESIDE_DEPTH)
    made = edit.call(aten.conv2d.default, flat, plane, given["bias"], stride, padding, dilation, given["groups"])
    return edit.call(aten.reshape.default, made, list(result))


_BESIDE_DEPTH = (("stride", 1), ("padding", 0), ("dilation", 1))


def _slice_by_slice(
    edit: Editor,
    given: dict[str, Any],
    weight: torch.Tensor,
    settings: dict[str, tuple[int, ...]],
    shape: tuple[int, ...],
    result: tuple[int, ...],
) -> torch.fx.Node:
    n, c = shape[:2]
    outputs, depth = result[1:3]
    taps = weight.shape[2]
    stride, padding, dilation = (settings[name][0] for name in ("stride", "padding", "dilation"))
    x = given["input"]
    if padding:
        x = edit.call(aten.constant_pad_nd.default, x, [0, 0, 0, 0, padding, padding], 0.0)
    # Tap t of result d reads depth d * stride + t * dilation.
    ends = [tap * dilation + (depth - 1) * stride + 1 for tap in range(taps)]
    slices = [edit.call(aten.slice.Tensor, x, 2, t * dilation, end, stride) for t, end in enumerate(ends)]
    gathered = edit.call(aten.cat.default, slices, 1) if taps > 1 else slices[0]
    by_depth = edit.call(aten.permute.default, gathered, [0, 2, 1, 3, 4])
    images = edit.call(aten.reshape.default, by_depth, [n * depth, taps * c, *shape[3:]])
    plane = weight.transpose(1, 2).reshape(outputs, -1, *weight.shape[3:])
    made = edit.call(
        aten.conv2d.default,
        images,
        edit.constant(plane, "as_2d", given["weight"]),
        given["bias"],
        *([*settings[name][1:]] for name in ("stride", "padding", "dilation")),
        given["groups"],
    )
    volumes = edit.call(aten.reshape.default, made, [n, depth, outputs, *result[3:]])
    return edit.call(aten.permute.default, volumes, [0, 2, 1, 3, 4])
