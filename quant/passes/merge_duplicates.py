"""Computes once what was computed twice: the same operators on the same tensors."""

from __future__ import annotations

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused


def merge_duplicates(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Merges the call at `at` with an equal one before it, and then what follows both alike; bit for bit the same."""
    edit = Editor(captured, at)
    first: dict[str, torch.fx.Node] = {}
    merged = 0
    for node in list(edit.graph.nodes):
        if node.op != "call_function" or _is_random(node):
            continue
        earlier = first.setdefault(_key(node), node)
        if earlier is node or not (merged or node.name == at):
            continue
        if any(user.op == "output" for user in node.users):
            continue  # a result of the network keeps a tensor of its own
        edit.merge(node, earlier)
        merged += 1
    return edit.finish() if merged else Refused(f"no {operator_type(edit.at)} before it computes the same")


def _key(node: torch.fx.Node) -> str:
    """Equal for calls of one operator with the same operands; nodes are spelled by their unique names."""
    return repr((str(node.target), node.args, sorted(node.kwargs.items())))


def _is_random(node: torch.fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
