"""Trainings that lint and prediction save: trained candidates to the same hypervolume, against plain constrained TPE.

Plain TPE trains each candidate before it learns that the accelerator refuses it: its constraints are told afterwards.
Beside it stands what it would need if refused candidates cost it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.rows.search_hypervolume import BARE, OURS, SEEDS
from bitwright.experiments.benchmarks.sampler_contest import EVALUATIONS, kept_search
from bitwright.experiments.benchmarks.tabular_networks import latency_table, scored_tables
from bitwright.nas.result import Outcome, Result

_LEAST_INFEASIBLE = 0.3
_PLAIN = BARE[0]


def run(bench: Bench) -> list[Record]:
    """For each table with enough infeasible candidates: how many trainings each needs, seed by seed."""
    tables = scored_tables(latency_table(bench.cache), bench.cache / "tabular")
    folder = bench.cache / "tabular" / "searches"
    lines, ratios = [], []
    for table in (each for each in tables if each.infeasible >= _LEAST_INFEASIBLE):
        ours, plain, lenient = [], [], []
        for seed in range(SEEDS):
            theirs = kept_search(table, _PLAIN, seed, folder)
            goal = table.hypervolume(theirs)
            reached = next(n for n in range(1, EVALUATIONS + 1) if table.hypervolume(theirs[:n]) >= goal - 1e-12)
            plain.append(_trained(theirs[:reached], refused_too=True))
            lenient.append(_trained(theirs[:reached], refused_too=False))
            own = kept_search(table, OURS, seed, folder)
            ours.append(next((n for n in range(1, EVALUATIONS + 1) if table.hypervolume(own[:n]) >= goal), EVALUATIONS))
        ratios.append(float(np.mean(plain) / np.mean(ours)))
        lines.append(
            {
                "table": table.name,
                "infeasible %": 100 * table.infeasible,
                "trained, plain TPE": float(np.mean(plain)),
                "… without refused ones": float(np.mean(lenient)),
                "trained, ours": float(np.mean(ours)),
                "times fewer": ratios[-1],
                "… without refused ones ": float(np.mean(lenient) / np.mean(ours)),
            }
        )
    return [
        record(
            "search_saved.trained", area="search", value=min(ratios), n=SEEDS, table=lines, reach=Reach("≥", 2),
            unit="times fewer trained candidates to the hypervolume of plain constrained TPE at 200, worst table",
        )
    ]  # fmt: skip


def _trained(results: Sequence[Result], *, refused_too: bool) -> int:
    """How many different candidates were trained."""
    return len({each.key for each in results if refused_too or each.outcome is Outcome.SCORED})
