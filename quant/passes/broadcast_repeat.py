"""Drops a repeat along axes of length 1 whose readers broadcast: they read the one copy again."""

from __future__ import annotations

from typing import Any

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, is_call, shape_of

_BROADCASTING = ("add", "sub", "mul", "div", "where", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")


def broadcast_repeat(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Lets every reader of the `repeat` or `expand` at `at` read its operand; bit for bit the same."""
    edit = Editor(captured, at)
    repeat = edit.at
    if not is_call(repeat, "repeat", "expand", "expand_as"):
        return Refused(f"{operator_type(repeat)} does not copy")
    operand: Any = repeat.args[0]
    before, after = shape_of(operand), shape_of(repeat)
    if before is None or after is None or len(before) != len(after):
        return Refused("it adds axes, or its shape is not fixed")
    if any(old not in (new, 1) for old, new in zip(before, after, strict=True)):
        return Refused("it repeats an axis that is longer than 1")
    for reader in list(repeat.users):
        if not is_call(reader, *_BROADCASTING):
            return Refused(f"{operator_type(reader) or 'a result of the network'} reads the copies")
        edit.at = reader
        args = tuple(operand if each is repeat else each for each in reader.args)
        made = edit.call(reader.target, *args, **reader.kwargs)
        if shape_of(made) != shape_of(reader):
            return Refused(f"{operator_type(reader)} takes its shape from the copies")
        edit.replace(reader, made)
    return edit.finish()
