"""Writes a mean over the height and width of images as the adaptive average pool that it is.

`x.mean((2, 3), keepdim=True) = adaptive_avg_pool2d(x, 1)`; without `keepdim`, a reshape follows that drops both axes.
"""

from __future__ import annotations

from typing import Any

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, shape_of


def mean_as_pool(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the mean at `at`; exact."""
    edit = Editor(captured, at)
    mean = edit.at
    if not is_call(mean, "mean"):
        return Refused(f"{operator_type(mean)} is no mean")
    given = arguments(mean)
    operand: Any = given["self"]
    before, after = shape_of(operand), shape_of(mean)
    if before is None or after is None or len(before) != 4:
        return Refused("it is no mean over images of known size")
    if sorted(axis % 4 for axis in given.get("dim") or range(4)) != [2, 3]:
        return Refused("it is not taken over height and width alone")
    if mean.meta["val"].dtype != operand.meta["val"].dtype:
        return Refused("it changes the type of its operand")
    pooled = edit.call(aten.adaptive_avg_pool2d.default, operand, [1, 1])
    edit.replace(mean, pooled if after == shape_of(pooled) else edit.call(aten.reshape.default, pooled, list(after)))
    return edit.finish()
