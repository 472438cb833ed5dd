"""Writes an assignment through a boolean mask as `where`, which keeps every shape.

`y[m] = v` is `where(m, v, y)`. Where `v` was computed from `x[m]` by operators that work on each row by itself, they
run on all rows of `x`, and `where` picks the ones that were meant.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.elementwise import ELEMENTWISE
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, aten, is_call, shape_of

# On rows [..., C]: what they do to one row does not hang on the others.
_BY_ROW = ELEMENTWISE | {"add", "sub", "rsub", "mul", "div", "pow", "linear", "layer_norm"}


def masked_write(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the `index_put` at `at`, or the one that the masked read at `at` ends in."""
    edit = Editor(captured, at)
    write = _write_after(edit.at)
    if write is None:
        return Refused(f"{operator_type(edit.at)} is no part of an assignment through a mask")
    edit.at = write
    y, indices, value = write.args[:3]
    accumulate: Any = write.args[3] if len(write.args) > 3 else write.kwargs.get("accumulate", False)
    mask, shape = _mask(indices), shape_of(y)
    if mask is None or shape is None or accumulate:
        return Refused("it does not assign through one boolean mask")
    whole = _on_all_rows(edit, value, mask, len(shape_of(mask) or ()))
    if isinstance(whole, Refused):
        return whole
    wide = mask
    for _ in range(len(shape) - len(shape_of(mask) or ())):
        wide = edit.call(aten.unsqueeze.default, wide, -1)
    edit.replace(write, edit.call(aten.where.self, wide, whole, y))
    return edit.finish()


def _write_after(node: torch.fx.Node) -> torch.fx.Node | None:
    """The assignment that a node makes, or that what was read through the mask goes into."""
    while not is_call(node, "index_put"):
        if not is_call(node, "index", *_BY_ROW) or len(node.users) != 1:
            return None
        node = next(iter(node.users))
    return node


def _mask(indices: Any) -> Any:
    """The only index, when it is a boolean mask."""
    only = indices[0] if isinstance(indices, list | tuple) and len(indices) == 1 else None
    is_mask = isinstance(only, torch.fx.Node) and only.meta["val"].dtype == torch.bool
    return only if is_mask and shape_of(only) is not None else None


def _on_all_rows(edit: Editor, value: Any, mask: torch.fx.Node, rank: int) -> torch.fx.Node | Refused:
    """What is assigned, for masked and other rows alike."""
    shape = shape_of(value)
    if shape is not None:
        # The same for every row: a number, or one row whose shape has no axis for the masked elements.
        if len(shape) > len(shape_of(edit.at) or ()) - rank:
            return Refused("the assigned values are as many as the mask has true elements, which is not known")
        return value  # type: ignore[no-any-return]
    if is_call(value, "index"):
        source: Any = value.args[0]
        if _mask(value.args[1]) is not mask:
            return Refused("the assigned values were read through another mask")
        return source  # type: ignore[no-any-return]
    if not is_call(value, *_BY_ROW):
        return Refused(f"{operator_type(value) or 'an argument'} works on all masked rows together")
    if is_call(value, "linear", "layer_norm") and len(shape_of(edit.at) or ()) == rank:
        return Refused(f"{operator_type(value)} works on all masked elements together")
    operands: list[Any] = []
    for operand in value.args:
        if isinstance(operand, torch.fx.Node) and shape_of(operand) is None:
            operand = _on_all_rows(edit, operand, mask, rank)
            if isinstance(operand, Refused):
                return operand
        elif isinstance(operand, torch.fx.Node) and edit.value(operand) is None:
            return Refused("a computed tensor is added to the masked rows")
        operands.append(operand)
    return edit.call(value.target, *operands, **value.kwargs)
