"""Drops an operator that changes nothing: a concatenation of one, a pad by zero, a permutation onto itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, pair, shape_of


def drop_no_effect(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Everybody who read the operator's result reads its operand; bit for bit the same."""
    edit = Editor(captured, at)
    same = _same_tensor(edit.at)
    if same is None:
        return Refused(f"{operator_type(edit.at)} changes its operand")
    if any(user.op == "output" for node in (edit.at, same) for user in node.users):
        return Refused("a result of the network keeps a tensor of its own")
    edit.replace(edit.at, same)
    return edit.finish()


def _same_tensor(node: torch.fx.Node) -> torch.fx.Node | None:
    """The operand that the result is equal to."""
    given = arguments(node)
    operand: Any = given.get("self", given.get("input", given.get("tensors")))
    if isinstance(operand, list | tuple):
        return operand[0] if operator_type(node) == "cat" and len(operand) == 1 else None
    shape = shape_of(node)
    if shape is None or shape != shape_of(operand) or node.meta["val"].dtype != operand.meta["val"].dtype:
        return _cast_back(node, operand)
    unchanged = _UNCHANGED.get(operator_type(node))
    return operand if unchanged is not None and unchanged(given, shape) else None


def _cast_back(node: torch.fx.Node, operand: Any) -> torch.fx.Node | None:
    """What a cast to a wider type and back started from."""
    if operator_type(node) != "to" or not isinstance(operand, torch.fx.Node) or operator_type(operand) != "to":
        return None
    start: Any = operand.args[0]
    first, between = start.meta["val"].dtype, operand.meta["val"].dtype
    return start if first == node.meta["val"].dtype and (first, between) in _WIDER else None


_WIDER = {
    (torch.float32, torch.float64),
    (torch.float16, torch.float32),
    (torch.float16, torch.float64),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.float64),
    (torch.int32, torch.int64),
    (torch.int8, torch.int32),
    (torch.uint8, torch.int32),
}


def _window_of_one(given: dict[str, Any], _: tuple[int, ...]) -> bool:
    stride = given.get("stride") or given["kernel_size"]
    return all(size == 1 for size in (*pair(given["kernel_size"]), *pair(stride))) and not any(pair(given["padding"]))


# For a result of its operand's shape and type: whether its values are the operand's, too.
_UNCHANGED: dict[str, Any] = {
    **dict.fromkeys(("reshape", "flatten", "squeeze", "unflatten", "expand", "expand_as"), lambda given, shape: True),
    **dict.fromkeys(("slice", "narrow", "repeat"), lambda given, shape: given.get("step", 1) == 1),
    **dict.fromkeys(("pad", "constant_pad_nd"), lambda given, shape: not any(given["pad"])),
    "permute": lambda given, shape: [d % len(shape) for d in given["dims"]] == list(range(len(shape))),
    "transpose": lambda given, shape: given["dim0"] % len(shape) == given["dim1"] % len(shape),
    "roll": lambda given, shape: not any(pair(given["shifts"], 1)),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), lambda given, shape: True),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _window_of_one),
    "upsample_nearest2d": lambda given, shape: True,
}
