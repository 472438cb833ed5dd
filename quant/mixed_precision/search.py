"""The search: tables of costs and of noise, the integer program on them, and the network itself as the judge.

Cheap first: noise is estimated from gradients for every layer. Exact where it matters: layers whose format changes when
the limit moves a little are quantized alone and run. What the program finds is then checked as a whole: its cost by the
cost itself (the tables leave out what three layers do together; by how much is learnt from each try), its noise by
running it, beside the next best assignments, the greedy one and those of one format; the best of them is improved by
what its own changes do (`refine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bitwright.quant.errors import InputError
from bitwright.quant.mixed_precision.budget import Cost
from bitwright.quant.mixed_precision.choice import Choice, front
from bitwright.quant.mixed_precision.formats import FLOAT
from bitwright.quant.mixed_precision.greedy import first_that, greedy_path
from bitwright.quant.mixed_precision.networks import MixedNetworks, decibels
from bitwright.quant.mixed_precision.noise_table import NoiseTable
from bitwright.quant.mixed_precision.problem import Assignment
from bitwright.quant.mixed_precision.program import Program
from bitwright.quant.mixed_precision.refine import Solve, refined
from bitwright.quant.mixed_precision.tables import Table, expand
from bitwright.quant.plan import QuantPlan

Progress = Callable[[str, int, int], None]  # what is done, how many times, of how many

_TRIES = 8  # corrections of a limit by what the tables were off
_RUNNERS_UP = 4  # assignments that are run beside the best: the table of noise is off by more than they differ
_NEAR = 0.1  # of the way from the dearest to the cheapest: a limit that moves by so much shows who is undecided
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A sum that is limited or made small: by its table, and in truth."""

    name: str
    table: Table
    true: Callable[[Assignment], float]


_NOTHING = _Row(name="nothing", table=Table(), true=lambda assignment: 0.0)


class MixedSearch:
    """Finds assignments for one problem.

    Attributes:
        networks: puts networks together and runs them.
        costs: what can be limited, by name.
        noise: the sensitivities.
    """

    def __init__(self, networks: MixedNetworks, costs: Iterable[Cost], *, progress: Progress | None = None) -> None:
        """Nothing is computed before it is asked for.

        Args:
            networks: of the problem; its formats include `FLOAT`, be it allowed or not.
            costs: what can be limited.
            progress: called as tables are filled.
        """
        self.networks, self.problem = networks, networks.problem
        self.costs = {cost.name: cost for cost in costs}
        self._progress = progress
        self._program = Program(problem=self.problem)
        self._plans: dict[frozenset[tuple[str, str]], QuantPlan] = {}
        self._known: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._cost_tables: dict[str, Table] = {}
        self.noise = NoiseTable(networks, self._plan)

    # --- what is asked ---

    def at_share(self, name: str, share: float) -> float:
        """The value of a cost so far on the way from everything in float (0) to the scheme's own formats (1)."""
        start, end = (self.cost(name, self.problem.uniform(each)) for each in (FLOAT.name, self._own))
        return start + share * (end - start)

    def cost(self, name: str, assignment: Assignment) -> float:
        """A cost of the whole network."""
        key = name, frozenset(assignment.items())
        if key not in self._known:
            self._known[key] = self.costs[name].of(self.problem.graph, self._plan(assignment))
        return self._known[key]

    def least_noise(self, limits: Mapping[str, float]) -> Choice:
        """The assignment with the least noise that keeps limits.

        Args:
            limits: the most that each named cost may be.

        Raises:
            InputError: no assignment keeps them; the message names the nearest that can be kept.
        """
        rows = [(self._row(name), limit) for name, limit in limits.items()]
        self._require(rows)
        self._look_closer(limits)
        best = min(self._candidates(self._noise_row, rows), key=lambda choice: choice.noise)
        better = refined(best.formats, self.networks.noise, self.problem.allowed, self._near(rows))
        return best if better == best.formats else self._choice(better, "refined")

    def least_cost(self, name: str, floor_db: float, limits: Mapping[str, float] | None = None) -> Choice:
        """The cheapest assignment whose results keep an SQNR.

        Args:
            name: the cost that is made small.
            floor_db: the least SQNR, dB.
            limits: of costs, as for `least_noise`.

        Raises:
            InputError: no assignment keeps them; the message names the nearest that can be kept.
        """
        most = 10.0 ** (-floor_db / 10.0)
        rows = [(self._noise_row, most), *((self._row(each), limit) for each, limit in (limits or {}).items())]
        self._require(rows)
        found = self._candidates(self._row(name), rows)
        return min(found, key=lambda choice: (choice.costs[name], choice.noise))

    def pareto(self, name: str, points: int = 16) -> tuple[Choice, ...]:
        """The front of a cost and noise: the least noise below each of so many limits, evenly from dear to cheap."""
        row = self._row(name)
        ends = [self._program.minimise(table) for table in (self.noise.table, row.table)]
        dear, cheap = (row.true(each) for each in ends if each is not None)
        found = [self._choice(each, "program") for each in ends if each is not None]
        for step in range(points):
            limit = dear + (cheap - dear) * step / max(1, points - 1)
            best = self._best(self._noise_row, [(row, limit)], [])
            if best is not None:
                found.append(self._choice(best, "program"))
        return front(found, name)

    # --- tables ---

    def cost_table(self, name: str) -> Table:
        """A cost by choice."""
        if name not in self._cost_tables:
            # Around float where it may be: a lone float layer hides in an int8 network, since runtimes quantize it
            # themselves, so that what two or three of them cost is no sum of pairs there.
            base = FLOAT.name if FLOAT.name in self.problem.allowed else self._own
            around = self.problem.uniform(base)
            self._cost_tables[name] = self._expanded(f"asking for {name}", lambda each: self.cost(name, each), around)
        return self._cost_tables[name]

    def _row(self, name: str) -> _Row:
        return _Row(name=name, table=self.cost_table(name), true=lambda each: self.cost(name, each))

    @property
    def _noise_row(self) -> _Row:
        return _Row(name="noise", table=self.noise.table, true=self.networks.noise)

    def _expanded(self, what: str, evaluate: Callable[[Assignment], float], base: dict[str, str]) -> Table:
        say = self._progress
        told = None if say is None else lambda done, count: say(what, done, count)
        return expand(evaluate, base, self.problem.allowed, self.problem.edges, progress=told)

    def _plan(self, assignment: Assignment) -> QuantPlan:
        key = frozenset(assignment.items())
        if key not in self._plans:
            self._plans[key] = self.problem.plan(assignment)
        return self._plans[key]

    @property
    def _own(self) -> str:
        return next(each.name for each in self.problem.formats if each.is_own)

    # --- the program, corrected ---

    def _best(
        self, objective: _Row, limits: Sequence[tuple[_Row, float]], excluded: Sequence[Assignment]
    ) -> dict[str, str] | None:
        """The optimum by the tables that keeps the limits in truth; None when none was found."""
        off = [0.0] * len(limits)
        unwanted, best = list(excluded), None
        for _ in range(_TRIES):
            tabled = [(row.table, limit - error) for (row, limit), error in zip(limits, off, strict=True)]
            found = self._program.minimise(objective.table, tabled, unwanted)
            if found is None:
                break
            holds = _holds(found, limits)
            if holds and (best is None or objective.table.total(found) < objective.table.total(best)):
                best = found
            learnt = [row.true(found) - row.table.total(found) for row, _ in limits]
            if holds and all(new >= old for new, old in zip(learnt, off, strict=True)):
                break  # no limit can be loosened
            unwanted, off = [*unwanted, found], learnt
        return best

    def _candidates(self, objective: _Row, limits: Sequence[tuple[_Row, float]]) -> list[Choice]:
        """The best by the tables, the next best, the greedy one and those of one format; as far as they hold."""
        found: list[tuple[dict[str, str], str]] = []
        for _ in range(_RUNNERS_UP):
            best = self._best(objective, limits, [each for each, _ in found])
            if best is None:
                break
            found.append((best, "program"))
        start, end = self._program.minimise(self.noise.table), self._cheapest(limits)
        for row, _ in limits:
            if row.name != "noise" and start is not None:
                path = greedy_path(start, end, self.noise.table, row.table)
                greedy = first_that(path, lambda each: _holds(each, limits))
                found += [(greedy, "greedy")] if greedy is not None else []
        uniform = [(self.problem.uniform(name), f"all {name}") for name in self.problem.allowed]
        found += [(each, by) for each, by in (*uniform, (end, "program")) if _holds(each, limits)]
        return [self._choice(each, by) for each, by in found]

    def _near(self, limits: Sequence[tuple[_Row, float]]) -> Solve:
        """The program for `refined`."""

        def solve(noise: Table, changes: Table, most: float) -> dict[str, str] | None:
            distance = _Row(name="changes", table=changes, true=changes.total)
            return self._best(_Row(name="noise", table=noise, true=noise.total), [*limits, (distance, most)], [])

        return solve

    def _cheapest(self, limits: Sequence[tuple[_Row, float]]) -> dict[str, str]:
        """What comes nearest to limits of nothing, so the cheapest in all of them together."""
        return self._program.nearest([(row.table, limit) for row, limit in limits])

    def _require(self, limits: Sequence[tuple[_Row, float]]) -> None:
        """Refuses limits that nothing keeps.

        Raises:
            InputError: names the nearest that can be kept.
        """
        nearest = self._program.nearest([(row.table, limit) for row, limit in limits])
        if _holds(nearest, limits) or self._best(_NOTHING, limits, []) is not None:
            return
        said = ", ".join(self._said(row, limit, "≤") for row, limit in limits)
        can = ", ".join(self._said(row, row.true(nearest), "=") for row, _ in limits)
        raise InputError(
            f"no assignment of {', '.join(self.problem.allowed)} keeps {said}; the nearest that can be kept: {can}"
        )

    def _said(self, row: _Row, value: float, sign: str) -> str:
        """A value in words; little noise is said as much SQNR."""
        if row.name in self.costs:
            return f"{row.name} {sign} {self.costs[row.name].said(value)}"
        return f"results {sign.replace('≤', '≥')} {decibels(value):.2f} dB SQNR"

    def _look_closer(self, limits: Mapping[str, float]) -> None:
        """Measures the groups that are undecided when the limits move a little."""
        for _ in range(_ROUNDS):
            found = []
            for step in (-_NEAR, 0.0, _NEAR):
                moved = [
                    (self._row(name).table, limit + step * (self.at_share(name, 0.0) - self.at_share(name, 1.0)))
                    for name, limit in limits.items()
                ]
                best = self._program.minimise(self.noise.table, moved)
                found += [best] if best is not None else []
            near = {
                (group, name)
                for group in self.problem.groups
                if len({each[group] for each in found}) > 1
                for name in self.problem.allowed
            }
            new = near - self.noise.measured.keys()
            if not any(name != FLOAT.name for _, name in new):
                return
            self.noise.measure(sorted(new))

    def _choice(self, assignment: Assignment, found_by: str) -> Choice:
        return Choice(
            formats=dict(assignment),
            costs={name: self.cost(name, assignment) for name in self.costs},
            noise=self.networks.noise(assignment),
            estimated_noise=self.noise.table.total(assignment),
            found_by=found_by,
        )


def _holds(assignment: Assignment, limits: Sequence[tuple[_Row, float]]) -> bool:
    return all(row.true(assignment) <= limit * (1 + 1e-9) for row, limit in limits)
