"""Which tensor of the reference leaves a part of the other link whose inside that does not show.

A delegate or a compiled subgraph has no operator that could be compared. What leaves it is the tensor of the same
shape, between the neighbours that are known, whose values are nearest: the part computed one of them, rightly or
wrongly, and its own error is judged as any layer's, on the inputs of the part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitwright.quant.parity.link import Array, Link
from bitwright.quant.parity.results import Inputs
from bitwright.quant.sqnr import sqnr_db


def join_opaque(first: Link, second: Link, joined: Mapping[str, str], inputs: Inputs) -> dict[str, str]:
    """The tensors that two links have in common, with what leaves the second's opaque parts, in the first's order.

    Args:
        first: the reference.
        second: the other.
        joined: by name or by structure.
        inputs: one input, on which values are compared.

    Raises:
        LinkError: a link cannot run.
    """
    opaque = [name for name, each in second.tensors.items() if each.is_opaque and name not in joined.values()]
    order = [*first.tensors]
    candidates = {name: _candidates(name, order, first, second, joined) for name in opaque}
    wanted = {each for found in candidates.values() for each in found}
    if not wanted:
        return dict(joined)
    expected = first.run(inputs, wanted=[name for name in order if name in wanted]).tensors
    actual = second.run(inputs, wanted=[name for name in opaque if candidates[name]]).tensors
    found = dict(joined)
    for name, choice in candidates.items():
        free = [each for each in choice if each not in found]
        if free:
            # Of tensors that are equal (a view, a dropout) the last: all of them are behind the part.
            found[max(free, key=lambda each: (_nearness(expected[each], actual[name]), order.index(each)))] = name
    return {name: found[name] for name in order if name in found}


def _candidates(
    name: str, order: Sequence[str], first: Link, second: Link, joined: Mapping[str, str]
) -> tuple[str, ...]:
    """Tensors of the same shape behind all that the part hangs on, and in front of all that hangs on it."""
    place = {there: order.index(here) for here, there in joined.items()}
    before = [place[each] for each in _reach(name, second, forward=False) if each in place]
    behind = [place[each] for each in _reach(name, second, forward=True) if each in place]
    shape, taken = second.tensors[name].shape, set(joined)
    return tuple(
        each
        for each in order[max(before, default=-1) + 1 : min(behind, default=len(order))]
        if first.tensors[each].shape == shape and first.tensors[each].op and each not in taken
    )


def _reach(name: str, link: Link, *, forward: bool) -> set[str]:
    """All tensors that one hangs on, or that hang on it."""
    edges: dict[str, list[str]] = {}
    for each, tensor in link.tensors.items():
        for read in tensor.reads:
            source, end = (read, each) if forward else (each, read)
            edges.setdefault(source, []).append(end)
    found, waiting = set[str](), [name]
    while waiting:
        for end in edges.get(waiting.pop(), ()):
            if end not in found:
                found.add(end)
                waiting.append(end)
    return found


def _nearness(expected: Array, actual: Array) -> float:
    """In dB."""
    if expected.shape != actual.shape or expected.dtype.kind not in "fiu":
        return -np.inf
    a, b = (np.nan_to_num(each.astype(np.float64), posinf=0, neginf=0) for each in (expected, actual))
    return sqnr_db(float(np.square(a).sum()), float(np.square(a - b).sum()))
