"""One spelling for each operator: what changes no value falls away, and twins get one name.

Targets, fused patterns and exporters then need to know `hardtanh`, not also `relu6`, `clamp(0, 6)` and `clamp_min`.
"""

from __future__ import annotations

import torch
import torch.fx

from bitwright.quant.fx_nodes import operator_type

aten = torch.ops.aten

_IDENTITIES = frozenset(
    ["alias", "detach", "lift_fresh_copy", "contiguous", "clone", "dropout", "feature_dropout", "alpha_dropout"]
)


def canonicalize(graph: torch.fx.Graph) -> None:
    """Rewrites a functional graph in place; no value changes."""
    for node in list(graph.nodes):
        name = operator_type(node)
        if name in ("view", "_unsafe_view"):
            # With the copies gone, a view may need one of its own, which reshape makes.
            node.target = aten.reshape.default
        elif name in ("relu6", "clamp", "clamp_min") and node.meta["val"].is_floating_point():
            _spell_clamp(node)
        elif (name in _IDENTITIES and not _drops_values(node)) or _is_cast_to_itself(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif name.startswith("_assert") or name in ("sym_constrain_range", "sym_constrain_range_for_size"):
            graph.erase_node(node)


def _spell_clamp(node: torch.fx.Node) -> None:
    """`relu` where only negative values are cut, `hardtanh` between two numbers."""
    low, high = (*node.args[1:], None, None)[:2] if operator_type(node) != "relu6" else (0.0, 6.0)
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    if isinstance(low, int | float) and isinstance(high, int | float):
        node.target, node.args, node.kwargs = aten.hardtanh.default, (node.args[0], low, high), {}
    elif isinstance(low, int | float) and low == 0 and high is None:
        node.target, node.args, node.kwargs = aten.relu.default, (node.args[0],), {}


def _is_cast_to_itself(node: torch.fx.Node) -> bool:
    operand = node.args[0] if node.args else None
    if operator_type(node) not in ("to", "type_as") or not isinstance(operand, torch.fx.Node):
        return False
    return bool(node.meta["val"].dtype == operand.meta["val"].dtype)


def _drops_values(node: torch.fx.Node) -> bool:
    """Whether it is a dropout that stays active in eval mode (`F.dropout(x)` without `training=`)."""
    return "dropout" in operator_type(node) and bool(node.args[2])
