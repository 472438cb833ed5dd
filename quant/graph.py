"""The torch-free graph that planning, linting, lowering and pruning share.

Operator types are ATen's base names in functional form (`conv2d`, `linear`, `hardtanh`, `add`, `cat`, …), attributes
carry ATen's argument names. Every tensor has a `TensorRef` that it keeps through rewrites, exports and runtimes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
TRANSPOSED_CONVOLUTIONS = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
# Of one input, one weight, and a bias where there is one.
LAYERS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | {"linear"}


@dataclass(frozen=True, order=True)
class TensorRef:
    """The lasting name of a tensor: where in the user's module tree it arises.

    Attributes:
        region: the captured submodule, `""` when the model was captured whole.
        module_path: for results of an operator, the path of the module whose forward called it; for parameters,
            buffers and constants their own path (`features.0.0.weight`); for inputs `$` and the argument's name.
        call_index: which call of that module (modules may run more than once).
        op_ordinal: the how-many-th operator within that call; -1 for tensors that no operator makes.
        output: which result of the operator.
    """

    region: str
    module_path: str
    call_index: int = 0
    op_ordinal: int = -1
    output: int = 0

    @property
    def is_op_result(self) -> bool:
        """Whether an operator makes this tensor (else it is an input, a parameter, a buffer or a constant)."""
        return self.op_ordinal >= 0

    def __str__(self) -> str:
        region = f"{self.region}!" if self.region else ""
        if not self.is_op_result:
            return f"{region}{self.module_path}"
        return f"{region}{self.module_path}@{self.call_index}.{self.op_ordinal}.{self.output}"

    @classmethod
    def parse(cls, text: str) -> TensorRef:
        """Reads back what `str` wrote.

        Raises:
            ValueError: the text is no reference.
        """
        match = _REF.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no tensor reference (expected module.path@call.ordinal.output)")
        region, path, call, ordinal, output = match.groups()
        if call is None:
            return cls(region or "", path)
        return cls(region or "", path, int(call), int(ordinal), int(output))


_REF = re.compile(r"(?:([^!@]*)!)?([^!@]*)(?:@(\d+)\.(\d+)\.(\d+))?")


class TensorKind(StrEnum):
    """What role a tensor has in the graph."""

    INPUT = "input"
    STATE = "state"  # a buffer that forward mutates: comes in, goes out
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    ACTIVATION = "activation"


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Shape and type of a tensor. A dimension that is not static is None."""

    ref: TensorRef
    shape: tuple[int | None, ...]
    dtype: str
    kind: TensorKind

    @property
    def is_floating(self) -> bool:
        """Whether the elements are real numbers."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def elements(self) -> int:
        """The number of elements.

        Raises:
            ValueError: a dimension is not static.
        """
        if None in self.shape:
            raise ValueError(f"tensor {self.ref} has a dynamic shape {self.shape}")
        return math.prod(d for d in self.shape if d is not None)


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's own code."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator call.

    Attributes:
        name: unique in the graph.
        op: the operator type.
        inputs: its tensor operands in the order of the operator's schema, lists flattened (`cat`), missing
            optional tensors as None.
        outputs: its results.
        attributes: every other argument by its name in the operator's schema.
        module_path: the module whose forward made the call.
        module_type: that module's class.
        source: the line in the user's code (library frames are skipped).
    """

    name: str
    op: str
    inputs: tuple[TensorRef | None, ...]
    outputs: tuple[TensorRef, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    module_path: str = ""
    module_type: str = ""
    source: SourceLine | None = None

    @property
    def tensors(self) -> tuple[TensorRef, ...]:
        """Its operands without the missing ones."""
        return tuple(ref for ref in self.inputs if ref is not None)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network as a topologically ordered list of operator calls.

    Attributes:
        nodes: in an order in which they can run.
        tensors: every tensor by its reference.
        inputs: the arguments, in order.
        outputs: the results, in order.
        state: pairs (incoming, outgoing) for buffers that forward mutates.
        load: returns a parameter, buffer or constant as an array; weights are kept by reference only.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[TensorRef, TensorInfo]
    inputs: tuple[TensorRef, ...]
    outputs: tuple[TensorRef, ...]
    state: tuple[tuple[TensorRef, TensorRef], ...] = ()
    load: Callable[[TensorRef], npt.NDArray[Any]] | None = None

    @cached_property
    def producers(self) -> dict[TensorRef, Node]:
        """The node that makes each operator result."""
        return {ref: node for node in self.nodes for ref in node.outputs}

    @cached_property
    def consumers(self) -> dict[TensorRef, tuple[Node, ...]]:
        """The nodes that read each tensor."""
        table: dict[TensorRef, list[Node]] = {ref: [] for ref in self.tensors}
        for node in self.nodes:
            for ref in dict.fromkeys(node.tensors):
                table[ref].append(node)
        return {ref: tuple(nodes) for ref, nodes in table.items()}

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    def is_constant(self, ref: TensorRef) -> bool:
        """Whether the tensor is known before the network runs."""
        return self.tensors[ref].kind in (TensorKind.PARAMETER, TensorKind.BUFFER, TensorKind.CONSTANT)

    def array(self, ref: TensorRef) -> npt.NDArray[Any]:
        """The values of a parameter, buffer or constant.

        Raises:
            LookupError: the graph was made without values, or the tensor has none.
        """
        if self.load is None or not self.is_constant(ref):
            raise LookupError(f"tensor {ref} has no values in this graph")
        return np.asarray(self.load(ref))

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of one node; 0 for operators that have none."""
        count = _MACS.get(node.op)
        return count(self, node) if count else 0

    def is_layer(self, node: Node) -> bool:
        """Whether a node multiplies and accumulates; unlike `macs`, also known where shapes are not static."""
        return node.op in _MACS

    def layer_positions(self, node: Node) -> tuple[int, int, int]:
        """Where a layer's input, weight and bias stand among `node.inputs`."""
        if node.op in ("addmm", "baddbmm"):
            return 1, 2, 0
        if node.op in ("matmul", "mm", "bmm") and self.is_constant(node.tensors[0]):
            return 1, 0, 2
        return 0, 1, 2

    def sole_consumer(self, ref: TensorRef) -> Node | None:
        """The only node that reads a tensor; None when several do or it is a result of the graph."""
        readers = self.consumers[ref]
        leaves = ref in self.outputs or any(ref == out for _, out in self.state)
        return readers[0] if len(readers) == 1 and not leaves else None

    def chains(self, patterns: Iterable[tuple[str, ...]]) -> Iterator[tuple[Node, ...]]:
        """Fused chains: each pattern's operators one behind the other, every inner tensor read by the next alone.

        Longer patterns win; a node is in one chain at most. This is the one fusion matcher.
        """
        ordered = sorted(set(patterns), key=lambda pattern: (-len(pattern), pattern))
        taken: set[str] = set()
        for anchor in self.nodes:
            for pattern in ordered:
                chain = self._chain_from(anchor, pattern)
                if chain and not any(node.name in taken for node in chain):
                    taken.update(node.name for node in chain)
                    yield chain
                    break

    def _chain_from(self, anchor: Node, pattern: tuple[str, ...]) -> tuple[Node, ...]:
        if anchor.op != pattern[0]:
            return ()
        chain = [anchor]
        for op in pattern[1:]:
            follower = self.sole_consumer(chain[-1].outputs[0])
            if follower is None or follower.op != op:
                return ()
            chain.append(follower)
        return tuple(chain)


def _conv_macs(graph: Graph, node: Node) -> int:
    weight = graph.tensors[node.tensors[1]]
    return graph.tensors[node.outputs[0]].elements * weight.elements // (weight.shape[0] or 1)


def _transposed_conv_macs(graph: Graph, node: Node) -> int:
    weight = graph.tensors[node.tensors[1]]
    return graph.tensors[node.tensors[0]].elements * weight.elements // (weight.shape[0] or 1)


def _linear_macs(graph: Graph, node: Node) -> int:
    return graph.tensors[node.outputs[0]].elements * (graph.tensors[node.tensors[0]].shape[-1] or 1)


def _addmm_macs(graph: Graph, node: Node) -> int:
    # Its operands are (bias, left, right).
    return graph.tensors[node.outputs[0]].elements * (graph.tensors[node.tensors[1]].shape[-1] or 1)


def _attention_macs(graph: Graph, node: Node) -> int:
    query, key, value = (graph.tensors[ref] for ref in node.tensors[:3])
    return query.elements * (key.shape[-2] or 1) + query.elements // (query.shape[-1] or 1) * (key.shape[-2] or 1) * (
        value.shape[-1] or 1
    )


_MACS: dict[str, Callable[[Graph, Node], int]] = {
    **dict.fromkeys(CONVOLUTIONS, _conv_macs),
    **dict.fromkeys(TRANSPOSED_CONVOLUTIONS, _transposed_conv_macs),
    **dict.fromkeys(("linear", "matmul", "bmm", "mm"), _linear_macs),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm_macs),
    "scaled_dot_product_attention": _attention_macs,
}
