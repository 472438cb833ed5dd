"""First pass: operators that the target's toolchain writes as several others are taken apart.

What an operator becomes is in `decompositions.py`; whether it does is the target's statement
(`operators.decomposed`). Products of attention are always taken apart where no engine has attention as such, since
every toolchain does. The last part keeps the operator's reference; inner tensors are further outputs of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.lower.decompositions import DECOMPOSITIONS, Writer
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph, Node, TensorInfo, TensorKind, TensorRef

_ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True, kw_only=True)
class Decomposed:
    """A network whose operators the target has.

    Attributes:
        graph: the network.
        parts: of each operator that was taken apart, by the names of its parts' nodes, what the reader should know.
    """

    graph: Graph
    parts: Mapping[str, str]


def decompose(graph: Graph, target: Target) -> Decomposed:
    """Takes apart what the target does; the same graph when there is nothing to do."""
    wanted = set(target.operators.decomposed)
    if _ATTENTION not in target.operators.quantized:
        wanted.add(_ATTENTION)
    if not any(node.op in wanted for node in graph.nodes):
        return Decomposed(graph=graph, parts={})
    tensors = dict(graph.tensors)
    values: dict[TensorRef, npt.NDArray[Any]] = {}
    nodes: list[Node] = []
    parts: dict[str, str] = {}
    for node in graph.nodes:
        recipe = DECOMPOSITIONS.get(node.op) if node.op in wanted else None
        writer = _NodeWriter(graph, tensors, values, node)
        if recipe is None or not recipe(writer, node):
            nodes.append(node)
            if node.op in wanted:
                parts[node.name] = f"{target.id} takes {node.op} apart, which is not modelled here: reckoned whole"
            continue
        nodes.extend(writer.nodes)
        said = target.operators.decomposed.get(node.op)
        checked = f" (not verified; {said.source})" if said is not None and not said.verified else ""
        text = f"{node.op} {node.name!r} written as {', '.join(part.op for part in writer.nodes)}{checked}"
        parts.update(dict.fromkeys((part.name for part in writer.nodes), text))
        tensors.update(writer.made)
    return Decomposed(
        graph=replace(graph, nodes=tuple(nodes), tensors=tensors, load=_loader(graph, values)), parts=parts
    )


def _loader(graph: Graph, values: Mapping[TensorRef, npt.NDArray[Any]]) -> Any:
    def load(ref: TensorRef) -> npt.NDArray[Any]:
        if ref in values:
            return values[ref]
        if graph.load is None:
            raise LookupError(f"tensor {ref} has no values in this graph")
        return np.asarray(graph.load(ref))

    return load


class _NodeWriter(Writer):
    """Writes the parts of one node, every one with its module and source line."""

    def __init__(
        self,
        graph: Graph,
        tensors: dict[TensorRef, TensorInfo],
        values: dict[TensorRef, npt.NDArray[Any]],
        node: Node,
    ) -> None:
        self.graph, self.tensors, self.values, self.node = graph, tensors, values, node
        self.nodes: list[Node] = []
        self.made: dict[TensorRef, TensorInfo] = {}

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        info = self.made.get(ref) or self.tensors[ref]
        return tuple(size or 0 for size in info.shape)

    def call(
        self, op: str, *operands: TensorRef, shape: Sequence[int], last: bool = False, **attributes: Any
    ) -> TensorRef:
        node = self.node
        ref = node.outputs[0] if last else self._inner(len(self.nodes) + 1)
        dtype = self.tensors[node.outputs[0]].dtype
        self.made[ref] = TensorInfo(ref=ref, shape=tuple(shape), dtype=dtype, kind=TensorKind.ACTIVATION)
        self.nodes.append(
            Node(
                name=f"{node.name}.{len(self.nodes)}",
                op=op,
                inputs=operands,
                outputs=(ref,),
                attributes=attributes,
                module_path=node.module_path,
                module_type=node.module_type,
                source=node.source,
            )
        )
        return ref

    def constant(self, values: npt.NDArray[Any]) -> TensorRef:
        ref = TensorRef(self.node.outputs[0].region, f"{self.node.name}.constant{len(self.values)}")
        dtype = self.tensors[self.node.outputs[0]].dtype
        self.made[ref] = TensorInfo(ref=ref, shape=values.shape, dtype=dtype, kind=TensorKind.CONSTANT)
        self.values[ref] = values
        return ref

    def _inner(self, number: int) -> TensorRef:
        return replace(self.node.outputs[0], output=len(self.node.outputs) - 1 + number)
