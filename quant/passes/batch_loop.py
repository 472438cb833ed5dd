"""Merges the unrolled steps of a loop over the parts of a tensor into one pass over the batch.

`torch.stack([f(x[:, i]) for i in range(n)], 1)` runs the same layers n times on small batches. Where every step reads
the same weights, and each of its operators works on the elements of a batch by themselves, `f` runs once on
`[B n, …]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.passes.merge_transposes import ELEMENTWISE
from bitwright.quant.rewrite import Editor, Refused, aten, is_call, shape_of

# Layers whose operand has a batch as its first axis, when it has that many axes.
_BATCHED_RANK = {
    **dict.fromkeys(("conv1d", "max_pool1d"), 3),
    **dict.fromkeys(("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"), 4),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d"), 4),
    "conv3d": 5,
}
# Here it suffices that one axis is left in front of those that they work on.
_LEADING = frozenset(["linear", "layer_norm", "batch_norm", "group_norm"])
_WITH_NUMBER = frozenset(["add", "sub", "mul", "div", "pow"])


@dataclass(frozen=True)
class _Loop:
    """The unrolled loop: what it runs over, along which axis, and the first step's operators."""

    source: torch.fx.Node
    axis: int
    step: tuple[torch.fx.Node, ...]
    count: int


def batch_loop(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Merges the loop whose results the `stack` at `at` collects, or a later `stack` that the node leads to; exact."""
    edit = Editor(captured, at)
    stack = _stack_after(edit.at)
    if stack is None:
        return Refused(f"the results of {operator_type(edit.at)} are not stacked")
    edit.at = stack
    loop = _loop(stack)
    if isinstance(loop, Refused):
        return loop
    shape, result = shape_of(loop.source), shape_of(stack)
    assert shape is not None and result is not None  # _loop has looked
    value = edit.call(aten.reshape.default, loop.source, [shape[0] * shape[1], *shape[2:]])
    for node in loop.step:
        value = edit.call(node.target, value, *node.args[1:], **node.kwargs)
    edit.replace(stack, edit.call(aten.reshape.default, value, list(result)))
    return edit.finish()


def _stack_after(node: torch.fx.Node) -> torch.fx.Node | None:
    while not is_call(node, "stack"):
        if len(node.users) != 1:
            return None
        node = next(iter(node.users))
    return node


def _loop(stack: torch.fx.Node) -> _Loop | Refused:
    ends: Any = stack.args[0]
    given: Any = stack.args[1] if len(stack.args) > 1 else stack.kwargs.get("dim", 0)
    shape = shape_of(stack)
    if shape is None:
        return Refused("its results have no fixed shape")
    axis = given % len(shape)
    steps = [_back_to_select(end) for end in ends]
    first = steps[0]
    if first is None or axis > 1 or len(ends) < 2:
        return Refused("the stacked tensors are no results of steps over the parts of one tensor")
    for i, step in enumerate(steps):
        if step is None or not _alike(step, first) or _part(step[0]) != (*_part(first[0])[:2], i):
            return Refused(f"step {i} is unlike the first one")
    source, along, _ = _part(first[0])
    if along != axis or shape_of(source) is None or (shape_of(source) or ())[axis] != len(ends):
        return Refused("it does not run over all parts along the axis on which the results are stacked")
    if (shape_of(first[0]) or ())[:1] == () or len(first) < 2:
        return Refused("there is nothing between the parts and the stack")
    if (shape_of(first[-1]) or ())[:1] != (shape_of(first[0]) or ())[:1]:
        return Refused("its steps change the size of the batch")
    return _Loop(source, axis, tuple(first[1:]), len(ends))


def _back_to_select(end: Any) -> list[torch.fx.Node] | None:
    """One step of the loop, from the part that it reads to what is stacked."""
    step: list[torch.fx.Node] = []
    while True:
        if not isinstance(end, torch.fx.Node) or len(end.users) != 1:
            return None
        step.insert(0, end)
        if is_call(end, "select"):
            return step
        if not _works_by_element(end):
            return None
        end = end.args[0]


def _works_by_element(node: torch.fx.Node) -> bool:
    """Whether what it does to one element of the batch, its operand's first axis, does not hang on the others."""
    operator, others = operator_type(node), node.all_input_nodes[1:]
    rank = len(shape_of(node.args[0]) or ())
    if any(other.op != "placeholder" for other in others):
        return False
    if operator in _BATCHED_RANK:
        return rank == _BATCHED_RANK[operator]
    if operator == "layer_norm":
        normalized: Any = node.args[1]
        return rank > len(normalized)
    return rank > 1 and (operator in _LEADING or (operator in ELEMENTWISE | _WITH_NUMBER and not others))


def _alike(step: list[torch.fx.Node], first: list[torch.fx.Node]) -> bool:
    """Whether two steps call the same operators with the same weights."""
    pairs = list(zip(step[1:], first[1:], strict=False))
    same = all(a.target == b.target and a.args[1:] == b.args[1:] and a.kwargs == b.kwargs for a, b in pairs)
    return len(step) == len(first) and same


def _part(select: torch.fx.Node) -> tuple[torch.fx.Node, int, int]:
    """Source, axis and index of a `select`."""
    arguments: Any = select.args
    source, axis, index = arguments
    shape = shape_of(source) or ()
    return source, axis % max(1, len(shape)), index % shape[axis] if shape else index
