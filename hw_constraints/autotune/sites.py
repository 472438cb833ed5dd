"""Where a choice between int8 and float is to be made, found from the graph and its plan alone.

A site is what has to go together: a chain that runs as one, with the float operators behind it whose time hangs on
what it writes. Sites that look alike are alike for the search, whatever their modules are called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan

# They cost nothing in any format, so they follow what reads them.
_VIEWS = frozenset(
    {"view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "select", "expand"}
)
_MERGE = frozenset({"add", "sub", "mul", "div", "cat"})


@dataclass(frozen=True, kw_only=True)
class Site:
    """One choice.

    Attributes:
        name: of the node that gives it its name, the first one.
        nodes: the nodes that are in int8 or in float together, in their order.
        tail: float operators behind it that the plan leaves no choice about (SiLU); their time hangs on the choice.
        kind: operators, kernel and whether it works on a picture or on a vector: `conv2d 3x3 depthwise + relu`.
        signature: kind and shapes; equal for the same layer of repeated blocks.
        elements: of its result.
    """

    name: str
    nodes: tuple[str, ...]
    tail: tuple[str, ...]
    kind: str
    signature: str
    elements: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """All choices of a network.

    Attributes:
        graph: the network.
        plan: with everything in low precision that its scheme allows.
        by_name: the sites in the graph's order.
        followers: nodes in low precision that only rename or cut a tensor; they follow their readers.
    """

    graph: Graph
    plan: QuantPlan
    by_name: Mapping[str, Site]
    followers: tuple[str, ...]

    @cached_property
    def of_node(self) -> dict[str, str]:
        """The site of each node, tails included."""
        return {node: site.name for site in self.by_name.values() for node in (*site.nodes, *site.tail)}

    @cached_property
    def edges(self) -> dict[tuple[str, str], int]:
        """Elements that flow from one site to another straight, with no float operator in between."""
        return self._flows(inside=True)

    @cached_property
    def float_edges(self) -> dict[tuple[str, str], int]:
        """Elements that flow through float operators that the plan leaves no choice about."""
        return self._flows(inside=False)

    def _flows(self, *, inside: bool) -> dict[tuple[str, str], int]:
        flows: dict[tuple[str, str], int] = {}
        for site in self.by_name.values():
            for ref in self.results(site):
                for reader, straight in self._readers(ref, straight=True):
                    if reader != site.name and straight is inside:
                        key = (site.name, reader)
                        flows[key] = max(flows.get(key, 0), elements(self.graph, ref))
        return flows

    def results(self, site: Site) -> tuple[TensorRef, ...]:
        """What a site writes, in front of its tail."""
        return self.graph.by_name[site.nodes[-1]].outputs

    def _readers(self, ref: TensorRef, *, straight: bool) -> list[tuple[str, bool]]:
        """The sites that read a tensor, be it through views and float operators."""
        found = []
        for node in self.graph.consumers[ref]:
            site = self.of_node.get(node.name)
            if site is not None and node.name in self.by_name[site].nodes:
                found.append((site, straight))
            else:
                still = straight and node.name in self.followers
                for result in node.outputs:
                    found += self._readers(result, straight=still)
        return found

    @cached_property
    def blocks(self) -> tuple[frozenset[str], ...]:
        """Sites between a fork and the operator that joins its branches, the joining one included.

        What one operand is computed from and another is not: the body of a residual block, a squeeze-and-excitation
        branch, the two arms of a cross-stage block. Those that hold more than half of all sites are left out.
        """
        before = self._ancestors()
        found = []
        for node in self.graph.nodes:
            arms = [before[ref] for ref in node.tensors if ref in before]
            if node.op not in _MERGE or len(arms) < 2:
                continue
            apart = frozenset.union(*arms) - frozenset.intersection(*arms)
            members = {self.of_node[name] for name in (*apart, node.name) if name in self.of_node}
            if 1 < len(members) <= len(self.by_name) / 2:
                found.append(frozenset(members))
        return tuple(dict.fromkeys(found))

    def _ancestors(self) -> dict[TensorRef, frozenset[str]]:
        """The nodes that each tensor is computed by."""
        before: dict[TensorRef, frozenset[str]] = {ref: frozenset() for ref in self.graph.inputs}
        for node in self.graph.nodes:
            known = [before[ref] for ref in node.tensors if ref in before]
            made = frozenset({node.name}).union(*known)
            before.update(dict.fromkeys(node.outputs, made))
        return before


def find_sites(graph: Graph, plan: QuantPlan) -> Sites:
    """Finds the choices of a network."""
    chains = {chain[0]: chain for chain in plan.fused}
    inner = {name for chain in plan.fused for name in chain[1:]}
    followers: list[str] = []
    anchors: list[str] = []
    for node in graph.nodes:
        if node.name in plan.quantized and node.name not in inner:
            (followers if node.op in _VIEWS else anchors).append(node.name)
    members = {name: chains.get(name, (name,)) for name in anchors}
    tails = _tails(graph, plan, members)
    sites = [_site(graph, members[name], tails[name]) for name in anchors]
    return Sites(graph=graph, plan=plan, by_name={site.name: site for site in sites}, followers=tuple(followers))


def _tails(graph: Graph, plan: QuantPlan, members: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Float operators, by the site that makes their first operand."""
    owner = {node: name for name, nodes in members.items() for node in nodes}
    tails: dict[str, list[str]] = {name: [] for name in members}
    for node in graph.nodes:
        makers = [graph.producers[ref].name for ref in node.tensors if ref in graph.producers]
        name = next((owner[maker] for maker in makers if maker in owner), None)
        if name is None or node.name in owner or node.name in plan.quantized:
            continue
        owner[node.name] = name
        tails[name].append(node.name)
    return {name: tuple(nodes) for name, nodes in tails.items()}


def _site(graph: Graph, nodes: tuple[str, ...], tail: tuple[str, ...]) -> Site:
    first, last = graph.by_name[nodes[0]], graph.by_name[nodes[-1]]
    operators = " + ".join([_spelled(graph, first), *(graph.by_name[name].op for name in (*nodes[1:], *tail))])
    shapes = [tuple(graph.tensors[ref].shape) for ref in (*first.tensors[:2], last.outputs[0])]
    on_vector = len(shapes[-1]) > 2 and all(size == 1 for size in shapes[-1][2:])
    kind = f"{operators} of a vector" if on_vector else operators
    return Site(
        name=nodes[0],
        nodes=nodes,
        tail=tail,
        kind=kind,
        signature=f"{kind} {' '.join(map(_shape, shapes))} {first.attributes.get('stride', '')}",
        elements=elements(graph, last.outputs[0]),
    )


def _spelled(graph: Graph, node: Node) -> str:
    """An operator with its kernel's size, and whether each channel is on its own."""
    if not graph.is_layer(node):
        return node.op
    position = graph.layer_positions(node)[1]
    ref = node.inputs[position] if position < len(node.inputs) else None
    if ref is None or len(graph.tensors[ref].shape) < 3:
        return node.op
    weight = graph.tensors[ref].shape
    size = _shape(tuple(weight[2:]))
    return f"{node.op} {size}{' depthwise' if node.attributes.get('groups', 1) > 1 and weight[1] == 1 else ''}"


def _shape(sizes: tuple[int | None, ...]) -> str:
    return "x".join(map(str, sizes))


def elements(graph: Graph, ref: TensorRef) -> int:
    """The number of elements; a size that is not static counts as 1."""
    return math.prod(size or 1 for size in graph.tensors[ref].shape)
