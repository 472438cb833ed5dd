"""The tensors of two links in stretches that fit into memory, each with what its layers read.

A network's activations are many times what it holds at one time while it runs. So tensors are recorded a stretch at a
time, in runs that begin with what the stretch reads (`prefix.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitwright.quant.parity.link import LinkTensor

# Of a stretch about eight copies are held at once: of both links, on the other's grid, given the reference's inputs,
# with errors of rounding, these in double precision, and on their way to and from a link's own process.
ROOM = 24 * 2**20
_BYTES = 4  # of an element as readers see it


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some layers behind one another.

    Attributes:
        names: the tensors that they make.
        known: these, and all that they are made from.
    """

    names: tuple[str, ...]
    known: tuple[str, ...]


def stretches(
    first: Mapping[str, LinkTensor], second: Mapping[str, LinkTensor], joined: Mapping[str, str], room: float = ROOM
) -> list[Stretch]:
    """Cuts the joined tensors, in their order.

    Args:
        first: the reference's tensors.
        second: those of the other link.
        joined: the other link's name of each tensor that both have, in the reference's order.
        room: bytes that the tensors of one stretch may take together; one that takes more has a stretch of its own.
    """
    back = {there: name for name, there in joined.items()}
    reads_first = nearest_reads(first, {name: name for name in joined})
    reads_second = nearest_reads(second, back)
    found, names, filled = [], list[str](), 0.0
    for name, there in joined.items():
        size = max(_size(first[name]), _size(second[there]))
        if names and filled + size > room:
            found.append(names)
            names, filled = [], 0.0
        names.append(name)
        filled += size
    return [
        Stretch(
            names=tuple(each),
            known=_with_reads(each, joined, {name: (*reads_first[name], *reads_second[joined[name]]) for name in each}),
        )
        for each in [*found, names]
        if each
    ]


def nearest_reads(tensors: Mapping[str, LinkTensor], known: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What each tensor is made from, among those that are known, be it through others; by their known names."""
    found: dict[str, tuple[str, ...]] = {}
    for name, tensor in tensors.items():
        reads: dict[str, None] = {}
        for each in tensor.reads:
            reads |= dict.fromkeys((known[each],) if each in known else found.get(each, ()))
        found[name] = tuple(reads)
    return found


def _with_reads(names: Sequence[str], order: Mapping[str, str], reads: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    wanted = {*names, *(each for name in names for each in reads[name])}
    return tuple(name for name in order if name in wanted)


def _size(tensor: LinkTensor) -> int:
    """Bytes; of a shape that nobody tells none."""
    return _BYTES * math.prod(each or 1 for each in tensor.shape) if tensor.shape is not None else 0
