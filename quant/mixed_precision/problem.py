"""What may be chosen: groups of layers that have to go together, the formats, and who is tied to whom.

A group is a set of operators that one choice decides for: those of one module, of one fused chain, and those that share
weights. So every assignment is a scheme with overrides by module: a recipe, training and every exporter can say it, and
`plan.plan` decides for it as for any other scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.mixed_precision.formats import LayerFormat
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import Override, QuantScheme

Assignment = Mapping[str, str]  # the format's name by the group's
Pair = tuple[str, str]

_EVERYTHING = "*"  # the glob of operators that the network's own forward calls: nothing narrower selects the empty path
_SIBLINGS = 4  # so many sources of a concat are costed pair by pair; more interact only through their reader


@dataclass(frozen=True, kw_only=True)
class Group:
    """One choice.

    Attributes:
        name: the path of its first module with weights, else of its first module; `$` for the network's own forward.
        nodes: names of its operators, in their order.
        modules: their paths.
        macs: multiply-accumulates.
        weights: constants that are quantized when it is.
    """

    name: str
    nodes: tuple[str, ...]
    modules: tuple[str, ...]
    macs: int
    weights: tuple[TensorRef, ...]


@dataclass(frozen=True, kw_only=True)
class Tie:
    """Groups whose results share scale and zero point (concat on most targets): their codes are of one kind.

    Attributes:
        groups: their names.
    """

    groups: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A network and the formats that its parts may get.

    Attributes:
        graph: batch norms folded.
        scheme: of everything that no choice changes.
        formats: the choices; those of `allowed` may be assigned, others are only looked at.
        allowed: names of formats that an assignment may use.
    """

    graph: Graph
    scheme: QuantScheme
    formats: tuple[LayerFormat, ...]
    allowed: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, LayerFormat]:
        """Formats by name."""
        return {each.name: each for each in self.formats}

    @cached_property
    def base_plan(self) -> QuantPlan:
        """What the scheme alone decides."""
        return plan(self.graph, self.scheme)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The choices, in the graph's order."""
        found = [_group(self.graph, self.base_plan, nodes) for nodes in self._partition()]
        return {group.name: group for group in found}

    @cached_property
    def group_of(self) -> dict[str, str]:
        """The group of each operator that has one."""
        return {node: group.name for group in self.groups.values() for node in group.nodes}

    def uniform(self, name: str) -> dict[str, str]:
        """Every group in one format."""
        return dict.fromkeys(self.groups, name)

    def plan(self, assignment: Assignment) -> QuantPlan:
        """The plan of an assignment."""
        return plan(self.graph, self.mixed_scheme(assignment))

    def mixed_scheme(self, assignment: Assignment) -> QuantScheme:
        """The scheme with an override for every module that an assignment makes an exception of."""
        chosen = {
            module: self.by_name[assignment[group.name]] for group in self.groups.values() for module in group.modules
        }
        overrides: list[Override] = []
        changed: set[str] = set()
        for module in sorted({node.module_path for node in self.graph.nodes}, key=lambda path: (_depth(path), path)):
            asked = chosen.get(module)
            if asked is not None and not asked.is_own:
                overrides.append(asked.override(module or _EVERYTHING))
                changed.add(module)
            elif module and any(above in changed for above in _above(module)):
                overrides.append(self._unchanged(module))  # an exception to the exception around it
                changed.add(module)
        return self.scheme.with_overrides(*overrides)

    def _unchanged(self, module: str) -> Override:
        """What the scheme itself says of a module."""
        operator = next(node.op for node in self.graph.nodes if node.module_path == module)
        own = self.scheme.override_for(module_path=module, operator=operator)
        return replace(own, module=module, operator="") if own is not None else Override(module=module)

    # --- who goes together ---

    def _partition(self) -> list[list[Node]]:
        decided, root = self.base_plan, dict[str, str]()

        def find(name: str) -> str:
            while root.setdefault(name, name) != name:
                name = root[name]
            return name

        def join(names: Sequence[str]) -> None:
            for name in names[1:]:
                root[find(name)] = find(names[0])

        modules: dict[str, list[str]] = {}
        readers: dict[TensorRef, list[str]] = {}
        nodes = [node for node in self.graph.nodes if node.name in decided.quantized]
        for node in nodes:
            modules.setdefault(node.module_path, []).append(node.name)
            for ref in node.tensors:
                if ref in decided.weights:
                    readers.setdefault(ref, []).append(node.name)
        for names in (*modules.values(), *readers.values(), *decided.fused):
            join(names)
        parts: dict[str, list[Node]] = {}
        for node in nodes:
            parts.setdefault(find(node.name), []).append(node)
        # What only moves codes has no format of its own: it follows what it moves.
        return [part for part in parts.values() if any(node.op in self.scheme.quantized_operators for node in part)]

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs of groups between which a format may have to change, directly or beyond operators without a choice."""
        sources: dict[TensorRef, frozenset[str]] = {}
        found: dict[tuple[str, str], None] = {}
        place = {name: index for index, name in enumerate(self.groups)}

        def connect(one: str, other: str) -> None:
            if one != other:
                first, second = sorted((one, other), key=place.__getitem__)
                found[first, second] = None

        for node in self.graph.nodes:
            arriving = frozenset[str]().union(*(sources.get(ref, frozenset()) for ref in node.tensors))
            group = self.group_of.get(node.name)
            if group is not None:
                for source in sorted(arriving, key=place.__getitem__):
                    connect(source, group)
            elif len(arriving) <= _SIBLINGS:
                for source in arriving:
                    for other in arriving:
                        connect(source, other)
            sources.update(dict.fromkeys(node.outputs, arriving if group is None else frozenset({group})))
        return tuple(sorted(found, key=lambda pair: (place[pair[0]], place[pair[1]])))

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """Groups that write tensors of one scale."""
        found = []
        for shared in self.base_plan.groups:
            writers = {self.graph.producers[ref].name for ref in shared if ref in self.graph.producers}
            names = frozenset(self.group_of[name] for name in writers if name in self.group_of)
            if len(names) > 1:
                found.append(Tie(groups=names))
        return tuple(found)

    def codes(self, name: str) -> str | None:
        """What a format's results are written as, for ties; None for real values, which take any codes."""
        asked = self.by_name[name]
        return None if asked.is_float else repr(asked.activations or self.scheme.activations)


def _group(graph: Graph, decided: QuantPlan, nodes: Sequence[Node]) -> Group:
    modules = tuple(dict.fromkeys(node.module_path for node in nodes))
    named = next((node.module_path for node in nodes if graph.is_layer(node)), modules[0])
    return Group(
        name=named or "$",
        nodes=tuple(node.name for node in nodes),
        modules=modules,
        macs=sum(map(graph.macs, nodes)),
        weights=tuple(dict.fromkeys(ref for node in nodes for ref in node.tensors if ref in decided.weights)),
    )


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _above(path: str) -> Iterable[str]:
    """The paths of the modules around a module, the network itself (``""``) last."""
    while path:
        path = path.rpartition(".")[0]
        yield path
