"""What rewrites of a captured network share: a copy to work on, new nodes with identities, and the way to refuse.

A rewrite is a function of a captured network and the name of the node at which it starts. It returns another network,
or `Refused` with the reason, before it has changed anything; the network that it was given stays as it was.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import KIND, MADE, MODULE, REF, SOURCE, copy_graph, operator_type
from bitwright.quant.graph import TensorKind, TensorRef

aten = torch.ops.aten


@dataclass(frozen=True)
class Refused:
    """Why a rewrite does not apply at a place."""

    reason: str


class Editor:
    """A copy of a captured network that is being rewritten around one node.

    Attributes:
        at: the node at which the rewrite starts; new nodes are put before it and take its module and source line.
        graph: the copy.
    """

    def __init__(self, captured: CapturedModel, at: str) -> None:
        self._captured = captured
        self.graph, copied = copy_graph(captured.fx_graph)
        by_name = {old.name: new for old, new in copied.items()}
        self.at = by_name[at]
        self._values = dict(captured.values)
        self._replaced = dict(captured.replaced)
        self._ordinals = used_ordinals(captured)
        self._made: set[torch.fx.Node] = set()

    def call(self, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        """A new operator call; the shapes of its results are computed."""
        with self.graph.inserting_before(self.at):
            node = self.graph.call_function(target, args, kwargs)
        node.meta[MODULE], node.meta[SOURCE] = self.at.meta[MODULE], self.at.meta[SOURCE]
        result = target(*torch.fx.node.map_arg(args, blank), **torch.fx.node.map_arg(kwargs, blank))
        node.meta["val"] = result
        parts = result if isinstance(result, list | tuple) else [result]
        ordinal = self._next_ordinal()
        like = _first_ref(self.at)
        node.meta[REF] = tuple(replace(like, op_ordinal=ordinal, output=i) for i in range(len(parts)))
        node.meta[MADE] = (self.at.name, len(self._made))
        self._made.add(node)
        return node

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(node.meta["val"].shape)

    def part(self, node: torch.fx.Node, index: int) -> torch.fx.Node:
        """One of the results of a call that has several."""
        with self.graph.inserting_before(self.at):
            part = self.graph.call_function(operator.getitem, (node, index))
        part.meta.update({MODULE: node.meta[MODULE], SOURCE: node.meta[SOURCE], REF: ()})
        part.meta["val"] = node.meta["val"][index]
        return part

    def constant(self, tensor: torch.Tensor, name: str, like: torch.fx.Node | None = None) -> torch.fx.Node:
        """A new parameter or constant.

        Args:
            tensor: its values.
            name: added to the path of `like`, or of the module at which the rewrite starts.
            like: the parameter that it is made of; without one it is a constant of the module.
        """
        at = _first_ref(self.at)
        path = like.meta[REF][0].module_path + f"_{name}" if like else f"{at.module_path}.{name}".lstrip(".")
        taken = {n.meta[REF][0].module_path for n in self.graph.nodes if n.op == "placeholder"}
        path = next(each for each in _numbered(path) if each not in taken)
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            node = self.graph.placeholder(path.replace(".", "_").lower())
        kind = like.meta[KIND] if like else TensorKind.CONSTANT
        node.meta.update({REF: (TensorRef(at.region, path),), KIND: kind, "val": tensor})
        self._values[node.name] = tensor.contiguous().clone()
        return node

    def value(self, node: Any) -> torch.Tensor | None:
        """The values of a parameter, buffer or constant; None for everything that the input or the state decides."""
        if not isinstance(node, torch.fx.Node) or node.meta.get(KIND) == TensorKind.STATE:
            return None
        return self._values.get(node.name)

    def tensor(self, ref: TensorRef) -> torch.fx.Node:
        """The node that stands for a tensor of the network."""
        found: torch.fx.Node = next(node for node in self.graph.nodes if _names(node, ref))
        return found

    def replace(self, old: torch.fx.Node, new: torch.fx.Node) -> None:
        """Lets everybody who reads `old` read `new`, which is the same tensor and keeps its name.

        A new node takes over the old one's reference. One that was there before keeps its own, and `replaced` says so.
        """
        old_ref, new_ref = _first_ref(old), _first_ref(new)
        if new in self._made and len(new.meta[REF]) == 1:
            new.meta[REF] = (old_ref,)
        elif old_ref != new_ref:
            self._replaced[old_ref] = new_ref
        old.replace_all_uses_with(new)

    def merge(self, old: torch.fx.Node, new: torch.fx.Node) -> None:
        """Like `replace`, for two calls that were there before, with all their results."""
        pairs = zip(old.meta[REF], new.meta[REF], strict=True)
        self._replaced.update((before, after) for before, after in pairs if before is not None)
        old.replace_all_uses_with(new)

    def finish(self) -> CapturedModel:
        """The rewritten network, without what nobody reads any more."""
        states = set(self._captured.state_names)
        for node in reversed(list(self.graph.nodes)):
            if node.users or node.op == "output":
                continue
            if node.op == "call_function" or (node.name in self._values and node.name not in states):
                self._values.pop(node.name, None)
                self.graph.erase_node(node)
        self.graph.lint()
        return replace(self._captured, fx_graph=self.graph, values=self._values, replaced=self._still_there())

    def _still_there(self) -> dict[TensorRef, TensorRef]:
        """What stands for each removed tensor now; without those for which nothing does any more."""
        there = {ref for node in self.graph.nodes for ref in node.meta.get(REF, ()) if ref is not None}
        found = {}
        for old, new in self._replaced.items():
            while new not in there and new in self._replaced:
                new = self._replaced[new]
            if new in there and old not in there:
                found[old] = new
        return found

    def _next_ordinal(self) -> int:
        like = _first_ref(self.at)
        key = (like.module_path, like.call_index)
        self._ordinals[key] = self._ordinals.get(key, -1) + 1
        return self._ordinals[key]


class Operators(Protocol):
    """Who computes the operators that one is written out as: `Editor` notes them down, training runs them."""

    def call(self, target: Any, *args: Any) -> Any:
        """The result of an operator of ATen."""

    def part(self, node: Any, index: int) -> Any:
        """One of the results of a call that has several."""

    def shape(self, node: Any) -> Sequence[int]:
        """The shape of a tensor."""


def arguments(node: torch.fx.Node) -> dict[str, Any]:
    """The arguments of a call by their names in the operator's schema, defaults filled in."""
    return named_arguments(node.target, node.args, node.kwargs)


def named_arguments(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What an operator is called with by the names in its schema, defaults filled in."""
    given = dict(zip((argument.name for argument in target._schema.arguments), args, strict=False))
    defaults = {a.name: a.default_value for a in target._schema.arguments if a.name not in given}
    return {**defaults, **given, **kwargs}


def shape_of(node: Any) -> tuple[int, ...] | None:
    """The shape of a tensor when all of it is known, else None."""
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def pair(value: Any, count: int = 2) -> tuple[int, ...]:
    """An ATen size argument as `count` numbers: `3`, `[3]` and `[3, 3]` are the same for two dimensions."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(values * count if len(values) == 1 else values)


def is_call(node: Any, *operators: str) -> bool:
    """Whether an argument is the result of a call of one of these operators."""
    return isinstance(node, torch.fx.Node) and node.op == "call_function" and operator_type(node) in operators


def blank(node: torch.fx.Node) -> Any:
    """A tensor of the node's shape and type without values, to find out those of what is computed from it."""
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return [torch.empty(part.shape, dtype=part.dtype, device="meta") for part in value]


def _first_ref(node: torch.fx.Node) -> TensorRef:
    if node.target is operator.getitem:
        source: Any = node.args[0]
        return source.meta[REF][node.args[1]]  # type: ignore[no-any-return]
    refs: tuple[TensorRef | None, ...] = node.meta[REF]
    return next(ref for ref in refs if ref is not None)


def _names(node: torch.fx.Node, ref: TensorRef) -> bool:
    if node.target is operator.getitem:
        return _first_ref(node) == ref
    return tuple(node.meta.get(REF, ())) == (ref,)


def used_ordinals(captured: CapturedModel) -> dict[tuple[str, int], int]:
    """The last ordinal that is taken in each call of a module; its key is the module's path and the call's index."""
    used: dict[tuple[str, int], int] = {}
    known = [ref for node in captured.fx_graph.nodes for ref in node.meta.get(REF, ()) if ref is not None]
    for ref in (*known, *captured.replaced):
        if ref.is_op_result:
            key = (ref.module_path, ref.call_index)
            used[key] = max(used.get(key, -1), ref.op_ordinal)
    return used


def fresh_ref(ref: TensorRef, ordinals: dict[tuple[str, int], int]) -> TensorRef:
    """A reference for what no longer holds the values of the tensor of this one; `ordinals` counts it."""
    key = (ref.module_path, ref.call_index)
    ordinals[key] = ordinals.get(key, -1) + 1
    return replace(ref, op_ordinal=ordinals[key])


def _numbered(path: str) -> Iterator[str]:
    yield path
    number = 2
    while True:
        yield f"{path}{number}"
        number += 1
