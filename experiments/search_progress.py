"""A search while it runs: how far it is and what is best so far, and where to watch it."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bitwright.nas import pareto
from bitwright.nas.result import Outcome
from bitwright.nas.search_outcome import Told


class SearchProgress:
    """Counts what became of candidates, and keeps the front.

    Attributes:
        counts: different candidates by what became of them.
    """

    def __init__(self, objectives: Sequence[str], maximize: Sequence[bool]) -> None:
        self.objectives, self.maximize = objectives, maximize
        self.counts = Counter[str]()
        self._front: list[tuple[float, ...]] = []

    def add(self, told: Told) -> None:
        """Takes one trial in."""
        if told.repeated:
            return
        self.counts[told.result.outcome.value] += 1
        if told.result.outcome is Outcome.SCORED:
            values = [told.result.figures[name] for name in self.objectives]
            front = [*self._front, pareto.losses(values, self.maximize)]
            self._front = [front[index] for index in pareto.non_dominated(front)]

    @property
    def text(self) -> str:
        """In a line: `3 infeasible, 8 scored; 2 on the front, accuracy 91.5 at best`."""
        counted = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        if not self._front:
            return counted
        best = min(point[0] for point in self._front) * (-1 if self.maximize[0] else 1)
        return f"{counted}; {len(self._front)} on the front, {self.objectives[0]} {best:.4g} at best"


def ways_to_watch(folder: Path, storage: str | None, dashboard: str | None = None) -> list[str]:
    """What to open beside a search.

    Args:
        folder: of the study.
        storage: the recipe's database; None is SQLite in the folder.
        dashboard: address of Dask's own page, where it has one.
    """
    database = f"sqlite:///{folder / 'study.db'}"
    if storage is not None:
        database = storage.replace("postgresql://", "postgresql+psycopg://", 1)
    missing = importlib.util.find_spec("optuna_dashboard") is None
    install = "    (pip install 'bitwright[dashboard]')" if missing else ""
    lines = [f"study     optuna-dashboard {database}{install}"]
    return [*lines, f"workers   {dashboard}"] if dashboard else lines
