"""Steps from one decision to the next, large ones first: what many sites have in common is tried for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.estimate import Estimate
from bitwright.hw_constraints.autotune.sites import Sites


@dataclass(frozen=True, kw_only=True)
class Move:
    """A step.

    Attributes:
        what: in words, for the record.
        decision: where it leads.
        estimate_us: the estimated time there; orders the moves, decides nothing.
    """

    what: str
    decision: Decision
    estimate_us: float


def moves(current: Decision, estimate: Estimate, price: float) -> list[Move]:
    """Every step from a decision, the most promising first.

    Args:
        current: where the search is.
        estimate: times of sites in both formats.
        price: of conversions; see `Estimate`.
    """
    found = []
    for what, members in _sets(estimate.sites):
        for word, floats in (
            ("in float", current.floats | members),
            ("in int8", current.floats - members),
        ):
            if floats != current.floats:
                time = estimate.total_us(floats, price)
                found.append(Move(what=f"{what} {word}", decision=replace(current, floats=floats), estimate_us=time))
    now = estimate.total_us(current.floats, price)
    for kind, members in _by(estimate.sites, lambda name: estimate.sites.by_name[name].kind):
        coded = members - current.floats
        if coded:
            real = current.real - coded if coded <= current.real else current.real | coded
            what = f"{kind}: {'a Q/DQ pair' if coded <= current.real else 'no Q/DQ'} in front of float operators"
            found.append(Move(what=what, decision=replace(current, real=real), estimate_us=now))
    found.sort(key=lambda move: move.estimate_us)
    return list({move.decision: move for move in reversed(found)}.values())[::-1]


def _sets(sites: Sites) -> Iterator[tuple[str, frozenset[str]]]:
    """Sets of sites that may go together: of a kind, of equal blocks, of equal shape, one alone."""
    yield from _by(sites, lambda name: sites.by_name[name].kind)
    yield from _equal_blocks(sites)
    yield from _by(sites, lambda name: sites.by_name[name].signature)
    for name in sites.by_name:
        yield f"{name} ({sites.by_name[name].kind})", frozenset({name})


def _by(sites: Sites, key: Callable[[str], str]) -> Iterable[tuple[str, frozenset[str]]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in sites.by_name:
        groups[key(name)].add(name)
    return [(what, frozenset(members)) for what, members in groups.items()]


def _equal_blocks(sites: Sites) -> Iterator[tuple[str, frozenset[str]]]:
    """Blocks with the same operators at once, then each set of blocks with the same shapes."""
    for level in ("kind", "signature"):
        groups: dict[tuple[str, ...], list[frozenset[str]]] = defaultdict(list)
        for block in sites.blocks:
            groups[tuple(sorted(getattr(sites.by_name[name], level) for name in block))].append(block)
        for spelled, blocks in groups.items():
            members = frozenset[str]().union(*blocks)
            yield f"{len(blocks)} blocks of {len(spelled)} sites ({', '.join(dict.fromkeys(spelled))})", members


def union(base: Decision, others: Iterable[Decision]) -> Decision:
    """All changes that decisions make to a common one, together."""
    floats, real = set(base.floats), set(base.real)
    spelled = base.spelled
    for other in others:
        floats ^= other.floats ^ base.floats
        real ^= other.real ^ base.real
        spelled = other.spelled if other.spelled != base.spelled else spelled
    return Decision(floats=frozenset(floats), real=frozenset(real), spelled=spelled)
