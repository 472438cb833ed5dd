"""Weights that are no numbers, or that cannot be read: a training that diverged, or a damaged file. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, TensorRef

# What norms read besides their input; masks and bounds elsewhere are infinite on purpose.
_NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})


@dataclass(frozen=True, kw_only=True)
class BrokenWeights:
    """A weight, bias or statistic that no layer can compute with.

    Attributes:
        node: the first that reads it.
        ref: the tensor.
        why: what is wrong with it.
    """

    node: Node
    ref: TensorRef
    why: str


def broken_weights(graph: Graph) -> Iterator[BrokenWeights]:
    """The constants of layers and norms with NaN or infinity in them, or without values; each once, in order."""
    seen: set[TensorRef] = set()
    if graph.load is None:
        return
    for node in graph.nodes:
        if not graph.is_layer(node) and node.op not in _NORMS:
            continue
        for ref in node.tensors:
            if ref in seen or not graph.is_constant(ref) or not graph.tensors[ref].is_floating:
                continue
            seen.add(ref)
            if why := _complaint(graph, ref):
                yield BrokenWeights(node=node, ref=ref, why=why)


def _complaint(graph: Graph, ref: TensorRef) -> str:
    try:
        values = graph.array(ref)
    except InputError as error:  # a file's own arithmetic on its constants that comes to nothing
        return str(error)
    count = _not_finite(values)
    return f"{count:,} of {values.size:,} elements of {ref} are NaN or infinite" if count else ""


def _not_finite(values: npt.NDArray[np.floating]) -> int:
    """How many elements are not finite. One sum tells that there are none, at a third of the time of a look at each."""
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return 0
    return int(values.size - np.count_nonzero(np.isfinite(values)))
