"""Which operators compute places rather than values: index arithmetic and sampling coordinates stay in float.

Quantizing them moves indices or changes shapes without any error, so the plan leaves them alone and the linter
says so when somebody asks for them anyway. Torch-free.
"""

from __future__ import annotations

from bitwright.quant.graph import Graph, Node, TensorKind, TensorRef

# Operand positions that hold places: (operator, positions); None stands for "all but the first".
_PLACES: dict[str, tuple[int, ...] | None] = {
    "index": None,
    "index_put": None,
    "gather": (1,),
    "scatter": (1,),
    "scatter_add": (1,),
    "scatter_reduce": (1,),
    "index_select": (1,),
    "index_add": (1,),
    "embedding": (1,),
    "grid_sampler": (1,),
    "grid_sampler_2d": (1,),
    "grid_sampler_3d": (1,),
    "searchsorted": (0, 1),
    "bucketize": (0, 1),
}

_HOMOGENEOUS = 4  # coordinates of a point of space


def geometry_tensors(graph: Graph) -> frozenset[TensorRef]:
    """Tensors that only ever serve to compute places.

    Walks backwards from indices, coordinates and casts to integers; stops at layers with learned weights, since a
    learned offset is a feature until it is used as a place. Their result itself belongs to the set. A product with a
    projection matrix, be it an input, computed or a buffer, learns nothing and is walked through.
    """
    places: set[TensorRef] = set()
    for node in reversed(graph.nodes):
        places.update(place_operands(graph, node))
        made_for_places = bool(node.outputs) and all(
            ref in places or not (graph.consumers[ref] or ref in graph.outputs) for ref in node.outputs
        )
        if made_for_places and not has_learned_weights(graph, node):
            places.update(ref for ref in node.tensors if _only_read_for(graph, ref, places))
    return frozenset(places)


def geometry_nodes(graph: Graph) -> frozenset[str]:
    """Names of the nodes without learned weights that compute such tensors."""
    places = geometry_tensors(graph)
    return frozenset(
        node.name
        for node in graph.nodes
        if node.outputs and all(ref in places for ref in node.outputs) and not has_learned_weights(graph, node)
    )


def has_learned_weights(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies by parameters; a product of two activations, by a buffer or by a matrix of space no.

    Files of other toolkits do not tell buffers from parameters, but what maps points of space has at most
    `_HOMOGENEOUS` rows and columns.
    """
    if not graph.is_layer(node):
        return False
    weights = [graph.tensors[ref] for ref in node.tensors if graph.tensors[ref].kind is TensorKind.PARAMETER]
    if node.op in ("matmul", "mm", "bmm"):
        weights = [each for each in weights if any((size or 0) > _HOMOGENEOUS for size in each.shape[-2:])]
    return bool(weights)


def place_operands(graph: Graph, node: Node) -> list[TensorRef]:
    """The operands of a call that say where, not what: indices, coordinates, and what is cast to integers."""
    if node.op in _PLACES:
        positions = _PLACES[node.op]
        chosen = node.inputs[1:] if positions is None else [node.inputs[i] for i in positions if i < len(node.inputs)]
        if node.op == "index_put":
            chosen = [ref for ref in chosen if ref and not graph.tensors[ref].is_floating]
        return [ref for ref in chosen if ref]
    # A cast to integers makes an index; a comparison only makes a mask.
    integer_result = node.outputs and all(graph.tensors[ref].dtype.startswith(("int", "uint")) for ref in node.outputs)
    return [ref for ref in node.tensors if graph.tensors[ref].is_floating] if integer_result else []


def _only_read_for(graph: Graph, ref: TensorRef, places: set[TensorRef]) -> bool:
    if ref in graph.outputs or graph.is_constant(ref):
        return False
    return all(
        all(out in places for out in reader.outputs) or ref in place_operands(graph, reader)
        for reader in graph.consumers[ref]
    )
