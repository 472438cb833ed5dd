"""Drops an operator that changes nothing: a concatenation of one, a pad by zero, a permutation onto itself."""

from __future__ import annotations

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.no_effect import unchanged_operand
from bitwright.quant.rewrite import Editor, Refused


def drop_no_effect(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Everybody who read the operator's result reads its operand; bit for bit the same."""
    edit = Editor(captured, at)
    ref = unchanged_operand(captured.graph, captured.graph.by_name[at])
    if ref is None:
        return Refused(f"{operator_type(edit.at)} changes its operand")
    same = edit.tensor(ref)
    if any(user.op == "output" for node in (edit.at, same) for user in node.users):
        return Refused("a result of the network keeps a tensor of its own")
    edit.replace(edit.at, same)
    return edit.finish()
