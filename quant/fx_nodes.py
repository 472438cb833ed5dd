"""What Bitwright notes on the nodes of an `torch.fx` graph, and how it reads them."""

from __future__ import annotations

import operator
from typing import Any

import torch.fx

from bitwright.quant.graph import TensorRef

REF = "bitwright_ref"
KIND = "bitwright_kind"
SOURCE = "bitwright_source"
MODULE = "bitwright_module"
# Of a node that a rewrite made: the name of that at which it started, and how many it had made before.
MADE = "bitwright_made"

# torch's internal spellings of operators that the user called by another name.
_CANONICAL = {"_native_batch_norm_legit_no_training": "batch_norm", "_softmax": "softmax", "_to_copy": "to"}


def copy_graph(graph: torch.fx.Graph) -> tuple[torch.fx.Graph, dict[torch.fx.Node, torch.fx.Node]]:
    """A copy to rewrite, with the notes of every node, and which new node stands for each old one."""
    new = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    result: Any = new.graph_copy(graph, copied)
    new.output(result)
    new.output_node().meta = dict(graph.output_node().meta)
    return new, copied


def operator_type(node: torch.fx.Node) -> str:
    """ATen's base name of what a node calls, in functional form; "" for plumbing such as getitem."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return ""
    name: str = schema.name.split("::")[1]
    return _CANONICAL.get(name, name.rstrip("_") if not name.startswith("__") else name)


def ref_of(value: Any) -> TensorRef | None:
    """The tensor that an argument of a node stands for."""
    if not isinstance(value, torch.fx.Node):
        return None
    if value.target is operator.getitem:
        arguments: Any = value.args
        return arguments[0].meta[REF][arguments[1]]  # type: ignore[no-any-return]
    return value.meta[REF][0]  # type: ignore[no-any-return]
