"""Second pass: which operator calls run as one, which only give a tensor another shape, and which are known before.

Chains come from the target's `fused_patterns` through `Graph.chains`, the one matcher. Where an operator looks
functions up in a table as it writes its result (`table_lookups`), such a function is one more link: it reads codes.
"""

from __future__ import annotations

from collections.abc import Mapping

from bitwright.hw_constraints.lower.decompose import Decomposed
from bitwright.hw_constraints.lower.program import Block, Pass, Program, Reason
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.lower.work_of import kind_of
from bitwright.hw_constraints.operators import ACTIVATIONS, CREATIONS
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan

# They leave every element where it is, as long as tensors lie row by row; dropout is the identity when a network runs.
VIEWS = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"),
        *("alias", "detach", "dropout"),
    }
)


def fuse(network: Decomposed, target: Target, plan: QuantPlan, decided: Mapping[str, tuple[Place, str]]) -> Program:
    """Makes blocks of a network.

    Args:
        network: operators taken apart.
        target: whose patterns count.
        plan: the formats.
        decided: where each node runs and why, from `partition.decide`.
    """
    graph = network.graph
    known = known_before(graph)
    chains = {chain[0].name: chain for chain in _chains(graph, target, decided, known)}
    followers = {node.name for chain in chains.values() for node in chain[1:]}
    for node in graph.nodes:
        if node.name not in followers and node.outputs and node.outputs[0] not in known:
            table = _looked_up(graph, chains.get(node.name, (node,)), target, decided)
            if table is not None:
                chains[node.name] = (*chains.get(node.name, (node,)), table)
                followers.add(table.name)
    leaving = {*graph.outputs, *(after for _, after in graph.state)}
    blocks = []
    for node in graph.nodes:
        if node.name in followers or not node.outputs or all(ref in known for ref in node.outputs):
            continue
        block = _block(graph, chains.get(node.name, (node,)), known, leaving)
        place, why = decided[node.name]
        reasons = [Reason(Pass.DECOMPOSE, network.parts[node.name])] if node.name in network.parts else []
        if len(block.nodes) > 1:
            pattern = " -> ".join(each.op for each in block.nodes)
            tables = target.operators.table_lookups
            how = ", with a table as it writes" if tables and block.nodes[-1].op in tables.of else ""
            text = f"{target.id} runs {pattern} as one{how}; nothing between them is written"
            reasons.append(Reason(Pass.FUSE, text))
        if why:
            reasons.append(Reason(Pass.PARTITION, why))
        blocks.append(_placed(block, place, tuple(reasons)))
    return Program(graph=graph, target=target, plan=plan, blocks=tuple(blocks), known=frozenset(known))


def known_before(graph: Graph) -> set[TensorRef]:
    """Results that depend on constants and shapes alone."""
    known: set[TensorRef] = set()
    for node in graph.nodes:
        if node.op in CREATIONS or all(ref in known or graph.is_constant(ref) for ref in node.tensors):
            known.update(node.outputs)
    return known


def _chains(
    graph: Graph, target: Target, decided: Mapping[str, tuple[Place, str]], known: set[TensorRef]
) -> list[tuple[Node, ...]]:
    patterns = set(target.operators.fused_patterns)
    kept = []
    for chain in graph.chains(patterns):
        # A follower that runs elsewhere by itself ends the chain in front of it, if what is left is a pattern, too.
        elsewhere = (Place.HOST, Place.REFUSED)
        on_board = [decided[node.name][0] not in elsewhere for node in chain]
        length = on_board.index(False) if False in on_board else len(chain)
        cut = chain[:length]
        if len(cut) > 1 and tuple(node.op for node in cut) in patterns and cut[0].outputs[0] not in known:
            kept.append(cut)
    return kept


# What writes its results through a table, when it is no activation itself.
_WRITERS = frozenset(
    {WorkKind.CONVOLUTION, WorkKind.DEPTHWISE, WorkKind.MATRIX_PRODUCT, WorkKind.POOL, WorkKind.ELEMENTWISE}
)


def _looked_up(
    graph: Graph, chain: tuple[Node, ...], target: Target, decided: Mapping[str, tuple[Place, str]]
) -> Node | None:
    """The function of one element that a chain looks up as it writes; None where there is none.

    One operator has one activation, and a grouped convolution that is no depthwise one is several operators.
    """
    tables = target.operators.table_lookups
    follower = graph.sole_consumer(chain[-1].outputs[0]) if tables else None
    if tables is None or follower is None or follower.op not in tables.of:
        return None
    anchor = chain[0]
    active = any(node.op in ACTIVATIONS for node in chain)
    groups = anchor.attributes.get("groups", 1)
    grouped = groups > 1 and graph.tensors[anchor.tensors[0]].shape[1] != groups
    on_board = decided[anchor.name][0] is Place.LOW and decided[follower.name][0] is Place.LOW
    return follower if on_board and not active and not grouped and kind_of(anchor) in _WRITERS else None


def _block(graph: Graph, nodes: tuple[Node, ...], known: set[TensorRef], leaving: set[TensorRef]) -> Block:
    inner = {ref for node in nodes[:-1] for ref in node.outputs}
    operands = list(dict.fromkeys(ref for node in nodes for ref in node.tensors if ref not in inner))
    constants = [ref for ref in operands if ref in known or graph.is_constant(ref)]
    used = [ref for ref in nodes[-1].outputs if graph.consumers[ref] or ref in leaving] if graph.consumers else []
    return Block(
        name=nodes[0].name,
        nodes=nodes,
        reads=tuple(ref for ref in operands if ref not in constants),
        constants=tuple(constants),
        writes=tuple(used) or nodes[-1].outputs[:1],
    )


def _placed(block: Block, place: Place, reasons: tuple[Reason, ...]) -> Block:
    return Block(
        name=block.name,
        nodes=block.nodes,
        reads=block.reads,
        constants=block.constants,
        writes=block.writes,
        place=place,
        reasons=reasons,
    )
