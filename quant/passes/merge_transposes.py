"""Merges transposes: with the one before it, across operators that do not care, or into a reshape.

`permute(permute(x, p), q) = permute(x, p[q])`; nothing is left where `p[q]` is the identity. Elementwise operators
between the two work on each element by itself and change places with the first. A transpose that only moves axes of
length 1 leaves every element where it is in memory: it is a reshape.
"""

from __future__ import annotations

from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.elementwise import ELEMENTWISE
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, aten, is_call, shape_of

_WITH_NUMBER = frozenset(["add", "sub", "rsub", "mul", "div", "pow"])


def merge_transposes(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Merges the transpose at `at` with an earlier one, else makes it a reshape when it moves nothing; bit-equal."""
    edit = Editor(captured, at)
    last = edit.at
    order, shape = permutation(last), shape_of(last)
    if order is None or shape is None:
        return Refused(f"{operator_type(last)} is no transpose of known axes")
    between: list[torch.fx.Node] = []
    first: Any = last.args[0]
    while _is_elementwise(first) and len(first.users) == 1:
        between.insert(0, first)
        first = first.args[0]
    earlier = permutation(first)
    if earlier is not None and (not between or len(first.users) == 1):
        source: Any = first.args[0]
        merged = [earlier[axis] for axis in order]
        return _move(edit, source, between, merged)
    operand: Any = last.args[0]
    if _moves_nothing(order, shape_of(operand)):
        edit.replace(last, edit.call(aten.reshape.default, operand, list(shape)))
        return edit.finish()
    return Refused("no transpose before it to merge with")


def _move(edit: Editor, source: torch.fx.Node, between: list[torch.fx.Node], order: list[int]) -> CapturedModel:
    """`between` on the source as it is, then the axes in the merged order."""
    value = source
    for node in between:
        value = edit.call(node.target, value, *node.args[1:], **node.kwargs)
    if order != list(range(len(order))):
        value = edit.call(aten.permute.default, value, order)
    edit.replace(edit.at, value)
    return edit.finish()


def permutation(node: Any) -> list[int] | None:
    """The order of axes that a permute or transpose makes; None for every other operator."""
    shape = shape_of(node)
    if shape is None or not is_call(node, "permute", "transpose", "t"):
        return None
    order = list(range(len(shape)))
    if is_call(node, "permute"):
        return [axis % len(shape) for axis in node.args[1]]
    first, second = node.args[1:3] if is_call(node, "transpose") else (0, -1)
    order[first], order[second] = order[second], order[first]
    return order


def _is_elementwise(node: Any) -> bool:
    if not is_call(node, *ELEMENTWISE, *_WITH_NUMBER):
        return False
    return len(node.all_input_nodes) == 1 and node.args[0] is node.all_input_nodes[0]


def _moves_nothing(order: list[int], shape: tuple[int, ...] | None) -> bool:
    """Whether the axes longer than 1 keep their order."""
    return shape is not None and (moved := [axis for axis in order if shape[axis] != 1]) == sorted(moved)
