"""The integer program: one binary variable for each group and format, solved to optimality by HiGHS.

A cost of a pair of neighbours is linearised exactly: `z(g, h, f, f') >= 0` with `Σ_f' z = x(g, f)` and
`Σ_f z = x(h, f')`. With binary x there is one solution, `z = x(g, f) x(h, f')` (the local marginal polytope; Sherali
and Adams 1990). Groups that share scales have one more binary for each kind of codes, of which one is 1:
`x(g, f) <= y(codes of f)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.mixed_precision.problem import Assignment, Problem
from bitwright.quant.mixed_precision.tables import Table

Limit = tuple[Table, float]

# HiGHS stops at an absolute gap of 1e-6 that cannot be set from SciPy: objectives are scaled so that it is nothing.
_OBJECTIVE_SCALE = 1e4
# HiGHS keeps constraints within 1e-6 of their scaled coefficients; what it lets through is checked again and excluded.
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """The choices of a problem as variables.

    Attributes:
        problem: groups, formats and ties.
        seconds: at most, for one solution.
    """

    problem: Problem
    seconds: float = 60.0

    def minimise(
        self, objective: Table, limits: Sequence[Limit] = (), excluded: Sequence[Assignment] = ()
    ) -> dict[str, str] | None:
        """The assignment of least cost that keeps all limits; None when there is none.

        Of assignments that are equal in the objective any may be returned.

        Args:
            objective: what is made small.
            limits: tables with the most that each may sum up to.
            excluded: assignments that are not wanted.

        Raises:
            TimeoutError: no proof of optimality within `seconds`.
        """
        unwanted = list(excluded)
        while True:
            form = _Form(self.problem, [objective, *(table for table, _ in limits)])
            for table, limit in limits:
                form.limit(table, limit)
            for each in unwanted:
                form.exclude(each)
            found = form.solve(objective, self.seconds)
            if found is None or all(keeps(table, limit, found) for table, limit in limits):
                return found
            unwanted.append(found)

    def nearest(self, limits: Sequence[Limit]) -> dict[str, str]:
        """The assignment that exceeds limits least: the smallest sum of excesses, each in units of its limit."""
        form = _Form(self.problem, [table for table, _ in limits])
        slacks = [form.limit(table, limit, soft=True) for table, limit in limits]
        weights = {
            slack: 1.0 / max(abs(limit), math.ulp(1.0)) for slack, (_, limit) in zip(slacks, limits, strict=True)
        }
        found = form.solve(Table(), self.seconds, extra=weights)
        if found is None:
            raise AssertionError("a program whose limits may all be exceeded has a solution")
        return found


def keeps(table: Table, limit: float, assignment: Assignment) -> bool:
    """Whether an assignment keeps a limit, but for rounding."""
    return table.total(assignment) <= limit + _SLACK * max(1.0, abs(limit))


@dataclass(kw_only=True)
class _Rows:
    """Linear constraints, `low <= A x <= high`, one entry at a time."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, entries: Sequence[tuple[int, float]], low: float, high: float) -> None:
        for column, value in entries:
            self.rows.append(len(self.low))
            self.columns.append(column)
            self.values.append(value)
        self.low.append(low)
        self.high.append(high)


class _Form:
    """Variables and constraints of one program."""

    def __init__(self, problem: Problem, tables: Sequence[Table]) -> None:
        self.problem, self.rows = problem, _Rows()
        self.choice = {(g, f): i for i, (g, f) in enumerate((g, f) for g in problem.groups for f in problem.allowed)}
        self.binaries = self.count = len(self.choice)
        self.between: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        self.slacks: set[int] = set()
        for group in problem.groups:
            self.rows.add([(self.choice[group, f], 1.0) for f in problem.allowed], 1.0, 1.0)
        self._tie()
        for pair in dict.fromkeys(pair for table in tables for pair in table.pairs):
            self._link(*pair)

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _tie(self) -> None:
        """Before any continuous variable: binaries come first."""
        codes = {name: self.problem.codes(name) for name in self.problem.allowed}
        kinds = [kind for kind in dict.fromkeys(codes.values()) if kind is not None]
        if len(kinds) < 2:
            return
        for tie in self.problem.ties:
            one_of = {kind: self._new() for kind in kinds}
            self.rows.add([(column, 1.0) for column in one_of.values()], 1.0, 1.0)
            for group in sorted(tie.groups):
                for name, kind in codes.items():
                    if kind is not None:
                        self.rows.add([(self.choice[group, name], 1.0), (one_of[kind], -1.0)], -np.inf, 0.0)
        self.binaries = self.count

    def _link(self, one: str, other: str) -> None:
        names = self.problem.allowed
        columns = {(f, g): self._new() for f in names for g in names}
        self.between[one, other] = columns
        for f in names:
            self.rows.add([*((columns[f, g], 1.0) for g in names), (self.choice[one, f], -1.0)], 0.0, 0.0)
            self.rows.add([*((columns[g, f], 1.0) for g in names), (self.choice[other, f], -1.0)], 0.0, 0.0)

    def _entries(self, table: Table) -> list[tuple[int, float]]:
        """A table's costs by variable."""
        found = [(self.choice[key], value) for key, value in table.alone.items() if key in self.choice and value]
        for pair, costs in table.pairs.items():
            columns = self.between[pair]
            found += [(columns[key], value) for key, value in costs.items() if key in columns and value]
        return found

    def limit(self, table: Table, most: float, *, soft: bool = False) -> int:
        """`total <= most`; softly, the column of what it is exceeded by, in the table's unit, is returned."""
        entries, room = self._entries(table), most - table.constant
        scale = max((abs(value) for _, value in entries), default=1.0)
        scaled = [(column, value / scale) for column, value in entries]
        slack = -1
        if soft:
            slack = self._new()
            self.slacks.add(slack)
            scaled.append((slack, -1.0 / scale))
        self.rows.add(scaled, -np.inf, room / scale)
        return slack

    def exclude(self, assignment: Assignment) -> None:
        """At least one group gets another format."""
        chosen = [self.choice[key] for key in assignment.items() if key in self.choice]
        if len(chosen) == len(assignment):
            self.rows.add([(column, 1.0) for column in chosen], -np.inf, len(chosen) - 1.0)

    def solve(self, objective: Table, seconds: float, extra: dict[int, float] | None = None) -> dict[str, str] | None:
        """The optimum, read off its binaries."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        costs: npt.NDArray[np.float64] = np.zeros(self.count)
        for column, value in (*self._entries(objective), *(extra or {}).items()):
            costs[column] += value
        largest = float(np.abs(costs).max(initial=0.0))
        high = np.array([np.inf if column in self.slacks else 1.0 for column in range(self.count)])
        shape = (len(self.rows.low), self.count)
        matrix = coo_array((self.rows.values, (self.rows.rows, self.rows.columns)), shape=shape).tocsr()
        found: Any = milp(
            costs * (_OBJECTIVE_SCALE / largest if largest else 1.0),
            constraints=LinearConstraint(matrix, self.rows.low, self.rows.high),
            integrality=(np.arange(self.count) < self.binaries).astype(int),
            bounds=Bounds(0.0, high),
            options={"mip_rel_gap": 0.0, "time_limit": seconds},
        )
        if found.status == 2:  # infeasible
            return None
        if found.status != 0:
            raise TimeoutError(f"no proof of the best assignment within {seconds:g} s: {found.message}")
        return {group: name for (group, name), column in self.choice.items() if found.x[column] > 0.5}
