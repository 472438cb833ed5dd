"""Blocks that switch mixed precision off, which a captured network need not keep: nothing has switched it on.

`torch.export` keeps such a block as a graph of its own behind a higher-order operator; tracing through that later loses
the user's lines.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch.export import ExportedProgram


def inline_disabled_autocast(program: ExportedProgram) -> None:
    """Puts the operators of `with torch.autocast(..., enabled=False)` where the block stands, lines and modules kept.

    Blocks that switch mixed precision on, and blocks with further blocks inside, stay as they are.
    """
    found = [node for node in program.graph.nodes if _is_disabled(node)]
    for node in found:
        body = getattr(program.graph_module, node.args[4].target)
        if not any(inner.op == "get_attr" for inner in body.graph.nodes):
            _inline(program, node, body)
    if found:
        program.graph_module.recompile()


def _is_disabled(node: torch.fx.Node) -> bool:
    """Its arguments: device, dtype, enabled, cache, the block's graph, then what the block reads."""
    return node.target is torch.ops.higher_order.wrap_with_autocast and node.args[2] is False


def _inline(program: ExportedProgram, node: torch.fx.Node, body: torch.fx.GraphModule) -> None:
    graph = program.graph
    parameters = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
    copied: dict[torch.fx.Node, Any] = dict(zip(parameters, node.args[5:], strict=True))
    with graph.inserting_before(node):
        results: Any = graph.graph_copy(body.graph, copied)
    for user in list(node.users):
        assert user.target is operator.getitem  # a block's results are always a tuple
        result = results[user.args[1]]
        program.graph_signature.replace_all_uses(user.name, result.name)
        user.replace_all_uses_with(result)
        graph.erase_node(user)
    block: Any = node.args[4]
    graph.erase_node(node)
    if not block.users:
        graph.erase_node(block)
