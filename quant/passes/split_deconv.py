"""Splits a grouped transposed convolution into one for each group, whose results stand side by side."""

from __future__ import annotations

from typing import Any

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call

MOST_GROUPS = 16  # more launches than that cost more than they save; a depthwise one is better trained as a resize


def split_deconv(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Splits the transposed convolution at `at` by its groups; exact."""
    edit = Editor(captured, at)
    deconv = edit.at
    if not is_call(deconv, "conv_transpose2d"):
        return Refused(f"{operator_type(deconv)} is no transposed convolution of an image")
    given = arguments(deconv)
    groups = int(given["groups"])
    weight, bias = edit.value(given["weight"]), edit.value(given["bias"])
    if weight is None or (given["bias"] is not None and bias is None):
        return Refused("its weight or bias is computed")
    if not 1 < groups <= MOST_GROUPS:
        return Refused(f"it has {groups} groups; 2 to {MOST_GROUPS} are split")
    inputs = weight.shape[0] // groups
    settings: list[Any] = [given[name] for name in ("stride", "padding", "output_padding")]
    parts = []
    for group in range(groups):
        own = weight[group * inputs : (group + 1) * inputs]
        own_weight = edit.constant(own, f"group{group}", given["weight"])
        own_bias = None
        if bias is not None:
            outputs = bias.shape[0] // groups
            own_bias = edit.constant(bias[group * outputs : (group + 1) * outputs], f"group{group}", given["bias"])
        x = edit.call(aten.slice.Tensor, given["input"], 1, group * inputs, (group + 1) * inputs)
        parts.append(edit.call(aten.conv_transpose2d.input, x, own_weight, own_bias, *settings, 1, given["dilation"]))
    edit.replace(deconv, edit.call(aten.cat.default, parts, 1))
    return edit.finish()
