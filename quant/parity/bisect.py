"""The layers that break, found by halves: O(k log n) partial runs for k faults, and few tensors held at a time.

Where `locate.py` keeps all tensors of a run, this asks for those at one cut through the network. A stretch of layers
runs on the reference's tensors at its beginning and is compared at its end: a fault in it does not hide those behind
it, because the next stretch begins with the reference's tensors again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bitwright.quant.integer.codes import Grid
from bitwright.quant.parity.joining import join
from bitwright.quant.parity.judge import Judgement, judge
from bitwright.quant.parity.link import Array, Link
from bitwright.quant.parity.locate import LayerParity, LinkParity, compare_links, on_grid
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.spread import Explained, difference, explain


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """What halving found.

    Attributes:
        breaks: the tensors that break, in running order, each with its judgement.
        runs: how many partial runs of the second link it took.
    """

    breaks: Mapping[str, Judgement]
    runs: int


def bisect_layers(first: Link, second: Link, inputs: Inputs, *, most: int = 8) -> Bisection:
    """Finds the layers of the second link that do not compute what the first's do.

    Args:
        first: the reference; takes tensors.
        second: the other; takes tensors.
        inputs: one input.
        most: stop behind so many breaks.
    """
    search = _Search(first, second, inputs, join(first.tensors, second.tensors, second.replaced))
    search.look(0, len(search.order), most)
    return Bisection(breaks=search.breaks, runs=search.runs)


def halve_links(first: Link, second: Link, inputs: Sequence[Inputs]) -> LinkParity:
    """As `compare_links`, but only the layers that break, found by halves; all where a link takes no tensors."""
    if not (first.takes_tensors and second.takes_tensors):
        return compare_links(first, second, inputs)
    joined = join(first.tensors, second.tensors, second.replaced)
    worst: dict[str, tuple[Judgement, int]] = {}
    runs = 0
    for sample, each in enumerate(inputs):
        found = bisect_layers(first, second, each)
        runs += found.runs
        for name, own in found.breaks.items():
            if name not in worst or own.severity > worst[name][0].severity:
                worst[name] = own, sample
    layers = [
        LayerParity(
            tensor=first.tensors[name],
            other_name=joined[name],
            own=worst[name][0],
            cumulative_db=worst[name][0].sqnr_db,
            sample=worst[name][1],
        )
        for name in joined
        if name in worst
    ]
    missing = (len(first.tensors) - len(joined), len(second.tensors) - len(joined))
    return LinkParity(first=first.name, second=second.name, layers=tuple(layers), not_joined=missing, halved=runs)


@dataclass
class _Search:
    """Positions count the joined tensors; a stretch is [begin, end)."""

    first: Link
    second: Link
    inputs: Inputs
    joined: Mapping[str, str]
    runs: int = 0
    breaks: dict[str, Judgement] = field(default_factory=dict)
    _known: dict[str, Array] = field(default_factory=dict)
    _unrounded: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order: Sequence[str] = tuple(self.joined)
        place = {name: position for position, name in enumerate(self.order)}
        # Until where a tensor is read; results and what only others read leave the network.
        self._last = {name: len(self.order) for name in self.order}
        readers = _readers(self.first, place)
        self._last.update({name: max(readers[name]) for name in self.order if readers.get(name)})

    def look(self, begin: int, end: int, most: int) -> None:
        """Adds the breaks of a stretch, first those of its first half."""
        if begin == end or len(self.breaks) >= most:
            return
        worst = self._compare(begin, end)
        if worst is None:
            return
        if end - begin == 1:
            self.breaks[self.order[begin]] = worst
            return
        middle = (begin + end) // 2
        # Where each half agrees and the whole does not, rounding has grown on its way: no layer is to blame.
        self.look(begin, middle, most)
        self.look(middle, end, most)

    def _compare(self, begin: int, end: int) -> Judgement | None:
        """The worst judgement of what leaves a stretch; None when all of it agrees."""
        wanted = self._at_end(begin, end)
        given = {name: on_grid(value, self._there(name)) for name, value in self._reference(self._entering(begin))}
        expected = dict(self._reference(wanted))
        self.runs += 1
        there = self.second.run(
            self.inputs,
            wanted=[self.joined[name] for name in wanted],
            given={self.joined[name]: value for name, value in given.items()},
        ).tensors
        found = [
            judge(
                expected[name],
                there[self.joined[name]],
                self.first.tensors[name].grid,
                self._there(name),
                explained=each,
            )
            for name, each in self._explained(wanted, given).items()
        ]
        broken = [each for each in found if not each.agrees]
        return max(broken, key=lambda each: each.severity, default=None)

    def _explained(self, wanted: Sequence[str], given: Mapping[str, Array]) -> dict[str, Explained]:
        """What all operators of a stretch do to what leaves it."""
        joined = {name: self.joined[name] for name in (*given, *wanted)}
        known = explain(self.first.tensors, self.second.tensors, joined, coarse=False)
        nudged = self.first.run(self.inputs, wanted=wanted, given=given, nudge=True)
        found = {}
        for name in wanted:
            exact, errors = self._unrounded.get(name), nudged.unrounded.get(name, nudged.tensors[name])
            clean = self._known[name] if exact is None else exact
            found[name] = replace(known[name], unrounded=exact, errors=difference(errors, clean))
        return found

    def _there(self, name: str) -> Grid | None:
        return self.second.tensors[self.joined[name]].grid

    def _entering(self, begin: int) -> list[str]:
        return [name for name in self.order[:begin] if self._last[name] >= begin]

    def _at_end(self, begin: int, end: int) -> list[str]:
        return [name for name in self.order[begin:end] if self._last[name] >= end]

    def _reference(self, names: Collection[str]) -> Iterator[tuple[str, Array]]:
        """The reference's own tensors, of which those at cuts are kept: no stretch runs the layers before it again."""
        missing = [name for name in names if name not in self._known]
        if missing:
            found = self.first.run(self.inputs, wanted=missing)
            self._known |= found.tensors
            self._unrounded |= found.unrounded
        yield from ((name, self._known[name]) for name in names)


def _readers(link: Link, place: Mapping[str, int]) -> dict[str, list[int]]:
    """Where each joined tensor is read; what is read through tensors that are not joined counts for those behind."""
    sources: dict[str, frozenset[str]] = {}
    found: dict[str, list[int]] = {}
    for name, tensor in link.tensors.items():
        reads: frozenset[str] = frozenset().union(
            *(frozenset([each]) if each in place else sources.get(each, frozenset()) for each in tensor.reads)
        )
        sources[name] = reads
        if name in place:
            for each in reads:
                found.setdefault(each, []).append(place[name])
    return found
