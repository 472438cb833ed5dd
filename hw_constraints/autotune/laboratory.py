"""Answers the search's questions by measuring, within a budget, and keeps every answer in the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.autotune.decision import Candidates, Decision
from bitwright.hw_constraints.autotune.estimate import Estimate, site_times
from bitwright.hw_constraints.autotune.fidelity import Accuracy, Fidelity, Judge
from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.hw_constraints.autotune.placements import Placements, measure_placements
from bitwright.hw_constraints.backends import Arrays
from bitwright.hw_constraints.measure import Ratio
from bitwright.quant.export.onnx_qdq import export_float

FLOAT = "float"
_PROFILED_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop looking.

    Attributes:
        tries: files that are measured at most, besides the float and the full int8 one.
        minutes: of measuring at most, earlier processes on the same record included; None for no limit.
    """

    tries: int = 40
    minutes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a measurement looks.

    Attributes:
        processes: fresh ones, one after the other.
        half_width: of the intervals within a process, wanted.
        seconds: for each process at most, loading not counted.
    """

    processes: int
    half_width: float
    seconds: float


class OutOfBudgetError(Exception):
    """The search has used what it was given."""


@dataclass(kw_only=True, eq=False)
class Laboratory:
    """Files, measurements and accuracies of decisions.

    Attributes:
        candidates: makes networks of decisions.
        runtime: a backend's name.
        threads: of the runtime.
        samples: the search's; the first one is what is timed.
        judge: makes what judges a file on samples.
        journal: the record.
        budget: how much may be spent.
        folder: where candidates' files lie while they are needed.
        others: other people's files of the same network, by their labels; they run in the last contest.
        progress: called with the number of tries and a note.
    """

    candidates: Candidates
    runtime: str
    threads: int
    samples: Sequence[Arrays]
    judge: Judge
    journal: Journal
    budget: Budget
    folder: Path
    others: Mapping[str, Path] = field(default_factory=dict)
    progress: Callable[[int, str], None] = lambda done, note: None
    _decisions: dict[str, Decision] = field(default_factory=dict)
    _tried: dict[str, int] = field(default_factory=dict)

    # --- files ---

    def name(self, decision: Decision) -> str:
        """The name of a decision's file in the record; decisions that lead to the same file share it."""
        identity = self.candidates.identity(decision)
        self._decisions.setdefault(identity, decision)
        return identity

    def file(self, name: str) -> Path:
        """A candidate's file, written when it is first asked for."""
        if name in self.others:
            return self.others[name]
        path = self.folder / f"{name}.onnx"
        if not path.is_file():
            partial = self.folder / f"{name}.partial.onnx"
            if name == FLOAT:
                export_float(self.candidates.reference.graph, partial)
            else:
                self.candidates.write(self._decisions[name], partial)
            partial.with_suffix(".provenance.json").replace(path.with_suffix(".provenance.json"))
            partial.replace(path)
        return path

    def discard(self, names: Sequence[str]) -> None:
        """Deletes files that lost."""
        for name in names:
            for suffix in (".onnx", ".provenance.json"):
                (self.folder / name).with_suffix(suffix).unlink(missing_ok=True)

    # --- the budget ---

    def is_new(self, decision: Decision) -> bool:
        """Whether no such file has been tried in this search."""
        return self.name(decision) not in self._tried

    def enter(self, reference: str, names: Sequence[str]) -> None:
        """Counts files that are about to race as tried.

        Tries are counted, not looked up in the record, so that a search that goes on takes the way that it took before;
        the time only decides about races that the record does not hold.

        Raises:
            OutOfBudgetError: nothing is left.
        """
        minutes, known = self.budget.minutes, self.journal.knows(_question([reference, *names], "race 1"))
        late = minutes is not None and self.journal.seconds >= 60 * minutes and not known
        if late or len(self._tried) + len(names) > self.budget.tries:
            raise OutOfBudgetError
        for name in names:
            self._tried.setdefault(name, len(self._tried) + 1)

    def number(self, name: str) -> int:
        """The how-many-th try a file was; 0 for those that were not tried."""
        return self._tried.get(name, 0)

    @property
    def tries(self) -> int:
        """Files tried."""
        return len(self._tried)

    # --- questions ---

    def ratios(self, names: Sequence[str], purpose: str, effort: Effort) -> dict[str, Ratio]:
        """The time of each file but the first in relation to the first one's, all of them interleaved.

        Args:
            names: of files, the reference first.
            purpose: of the measurement; the same files measured for another purpose are measured afresh.
            effort: how long to look.
        """
        reference, *others = names

        def find() -> dict[str, Any]:
            measured = self.measure(names, effort)
            ratios = {name: measured.ratio(name, reference) for name in others}
            return {
                "ratios": {name: [r.value, r.low, r.high, r.rounds] for name, r in ratios.items()},
                "reference_us": measured.median_us(reference),
            }

        answer = self.journal.ask(_question(names, purpose), find)
        return {
            name: Ratio(value=value, low=low, high=high, rounds=rounds)
            for name, (value, low, high, rounds) in answer["ratios"].items()
        }

    def measure(self, names: Sequence[str], effort: Effort) -> Placements:
        """Times files, interleaved; the first one is the reference."""
        return measure_placements(
            {name: self.file(name) for name in names},
            runtime=self.runtime,
            inputs=dict.fromkeys(names, self.samples[0]),
            threads=self.threads,
            processes=effort.processes,
            half_width=effort.half_width,
            seconds=effort.seconds,
        )

    @cached_property
    def accuracy(self) -> Accuracy:
        """Judges files on the search's samples."""
        return self.judge(self.file(FLOAT), self.samples)

    def fidelity(self, name: str) -> Fidelity:
        """How faithful a file is on the search's samples."""
        return Fidelity.from_json(
            self.journal.ask({"fidelity": name}, lambda: self.accuracy(self.file(name)).to_json())
        )

    def estimate(self, full: str) -> Estimate:
        """Times of sites in float and in int8, from two profiles.

        Args:
            full: the file with every site in int8.
        """
        times = {name: self._site_times(name) for name in (FLOAT, full)}
        return Estimate(sites=self.candidates.sites, float_us=times[FLOAT], int8_us=times[full])

    def _site_times(self, name: str) -> Mapping[str, float]:
        def find() -> dict[str, float]:
            return site_times(
                self.candidates.sites, self.file(name), self.runtime, self.samples[0],
                threads=self.threads, runs=_PROFILED_RUNS,
            )  # fmt: skip

        return self.journal.ask({"profile": name}, find)

    def decision(self, name: str) -> Decision:
        """What a file stands for."""
        return self._decisions[name]


def _question(names: Sequence[str], purpose: str) -> dict[str, Any]:
    return {"measure": list(names), "purpose": purpose}
