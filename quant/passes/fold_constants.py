"""Computes once what does not depend on the input: position tables, masks, grids, normalized weights."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import KIND, REF, copy_graph, operator_type
from bitwright.quant.graph import TensorKind

# Results that are larger than this and than what they are made of are left to the runtime.
LARGEST = 1 << 22

# Of their first operand they only read shape and type, which are known.
_SHAPE_ONLY = frozenset(["new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"])


def fold_constants(captured: CapturedModel) -> CapturedModel:
    """Returns the network with every operator that only reads constants replaced by its result.

    A result keeps its `TensorRef` and becomes a constant. Random operators stay, and so do those whose result is
    large beside their operands (`expand` of one row to a million).
    """
    graph, _ = copy_graph(captured.fx_graph)
    constants = {
        node: captured.values[node.name]
        for node in graph.nodes
        if node.op == "placeholder" and node.name in captured.values and node.meta[KIND] != TensorKind.STATE
    }
    folded = _evaluate(graph, constants)
    values = dict(captured.values)
    first = next(iter(graph.nodes))
    for node in folded:
        if isinstance(constants[node], torch.Tensor) and any(user not in constants for user in node.users):
            with graph.inserting_before(first):
                placeholder = _placeholder(graph, node)
            values[placeholder.name] = constants[node].contiguous().clone()
            node.replace_all_uses_with(placeholder, delete_user_cb=lambda user: user not in constants)
        elif isinstance(constants[node], int | float):
            _write_number(node, constants)
    for node in reversed(folded):
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node in constants and not node.users:
            values.pop(node.name)
            graph.erase_node(node)
    return replace(captured, fx_graph=graph, values=values)


@torch.no_grad()
def _evaluate(graph: torch.fx.Graph, constants: dict[torch.fx.Node, Any]) -> list[torch.fx.Node]:
    """Adds to `constants` what follows from them; returns the nodes that it added, in order."""
    folded = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        known: dict[torch.fx.Node, Any] = constants
        if operator_type(node) in _SHAPE_ONLY:
            like = node.args[0].meta["val"]
            known = {**constants, node.args[0]: torch.empty(like.shape, dtype=like.dtype)}
        if any(operand not in known for operand in node.all_input_nodes):
            continue
        if node.target is not operator.getitem and (_is_random(node) or not operator_type(node)):
            continue
        if _grows_nothing(node):
            node.replace_all_uses_with(node.args[0])  # stays the module's own parameter
            constants[node] = constants[node.args[0]]
            folded.append(node)
            continue
        arguments = torch.fx.node.map_arg(node.args, known.__getitem__)
        keywords = torch.fx.node.map_arg(node.kwargs, known.__getitem__)
        result = node.target(*arguments, **keywords)
        operands = [known[operand] for operand in node.all_input_nodes]
        if _elements(result) > max(LARGEST, *map(_elements, operands), 0):
            continue
        constants[node] = result
        folded.append(node)
    return folded


def _write_number(node: torch.fx.Node, constants: dict[torch.fx.Node, Any]) -> None:
    """A number that was read from a constant tensor (`self.scale.item()`) becomes an argument."""

    def replaced(operand: torch.fx.Node) -> Any:
        return constants[node] if operand is node else operand

    for user in list(node.users):
        if user not in constants:
            user.args = torch.fx.node.map_arg(user.args, replaced)
            user.kwargs = torch.fx.node.map_arg(user.kwargs, replaced)


def _grows_nothing(node: torch.fx.Node) -> bool:
    """`class_token.expand(1, -1, -1)`."""
    data = node.args[0] if node.args else None
    return (
        operator_type(node) == "expand"
        and isinstance(data, torch.fx.Node)
        and tuple(data.meta["val"].shape) == tuple(node.meta["val"].shape)
    )


def _is_random(node: torch.fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _elements(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    return sum(map(_elements, value)) if isinstance(value, list | tuple) else 0


def _placeholder(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    arguments: Any = node.args
    is_part = node.target is operator.getitem
    reference = arguments[0].meta[REF][arguments[1]] if is_part else node.meta[REF][0]
    placeholder = graph.placeholder(f"{node.name}_folded")
    placeholder.meta.update({REF: (reference,), KIND: TensorKind.CONSTANT, "val": node.meta["val"]})
    return placeholder
