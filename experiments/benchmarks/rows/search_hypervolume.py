"""Hypervolume and regret of our sampler on tabular spaces, against Optuna's and regularised evolution.

Each peer takes part bare, and once told all that ours is: what is refused, what was tried, latencies. Samplers were
tuned on made-up landscapes alone; the tables here are networks, data and seeds that nobody had looked at by then.
Searches are kept one by one, so the row can be cut off and run again. Optuna's GP takes no part: at about a second of
CPU a trial its 160 searches of 200 trials would take nine hours.

Latencies of the tables are sums over parts (`tabular_costs`): of three candidates each, predicted whole, they lie
within 5 %; products and refusals are equal. Row `tabular_samples` trains and times a dozen of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.sampler_contest import PEERS, Contestant, kept_search, regret
from bitwright.experiments.benchmarks.tabular_networks import latency_table, scored_tables
from bitwright.experiments.benchmarks.tabular_space import Table
from bitwright.nas.sampling.registry import INFORMED

SEEDS = 20
LEVEL = 0.05
_LOOKS = (100, 200)
# Of so many admissible proposals the one in the widest gap of known latencies, where that served a peer on landscapes.
_CHOOSE_FROM = {"tpe": 2, "nsga2": 1, "evolution": 1, "random": 1}
OURS = Contestant(name=INFORMED)
BARE = tuple(Contestant(name=name) for name in PEERS)
EQUIPPED = tuple(Contestant(name=name, equipped=_CHOOSE_FROM[name]) for name in PEERS)

Regrets = dict[tuple[str, str], dict[int, np.ndarray[Any, np.dtype[np.float64]]]]


def run(bench: Bench) -> list[Record]:
    """All searches, then the table of regrets and the tests."""
    tables = scored_tables(latency_table(bench.cache), bench.cache / "tabular")
    regrets = _regrets(tables, bench)
    lines = [_line(table, contestant, regrets) for table in tables for contestant in (OURS, *BARE, *EQUIPPED)]
    halved = [_ratio(regrets, table, peer) for table in tables for peer in BARE]
    beaten, worse = _tested(tables, regrets)
    area, n = "search", SEEDS
    return [
        record(
            "search_hypervolume.bare", area=area, value=max(halved), n=n, table=lines, reach=Reach("≤", 0.5),
            unit="mean regret at 200 over that of the best bare peer, worst table",
        ),
        record(
            "search_hypervolume.equipped_worse", area=area, value=worse, n=n, table=lines, reach=Reach("=", 0),
            unit="pairs of table and equipped peer where ours is worse (Holm-corrected Wilcoxon, 5 %)",
        ),
        record(
            "search_hypervolume.equipped_better", area=area, value=100 * beaten, n=n, table=lines,
            unit="% of pairs of table and equipped peer where ours is better (Holm-corrected Wilcoxon, 5 %)",
            reach=Reach("≥", 50.1),
        ),
    ]  # fmt: skip


def _regrets(tables: Sequence[Table], bench: Bench) -> Regrets:
    """By seed first, so that a run that was cut off has all contestants at equal numbers of seeds."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    everyone = (OURS, *BARE, *EQUIPPED)
    for seed, table, contestant in itertools.product(range(SEEDS), tables, everyone):
        results = kept_search(table, contestant, seed, bench.cache / "tabular" / "searches")
        looks = found.setdefault((table.name, str(contestant)), {look: [] for look in _LOOKS})
        for look in _LOOKS:
            looks[look].append(regret(table, results, look))
    return {key: {look: np.array(each) for look, each in looks.items()} for key, looks in found.items()}


def _line(table: Table, contestant: Contestant, regrets: Regrets) -> dict[str, Any]:
    own = regrets[table.name, str(contestant)]
    line: dict[str, Any] = {
        "table": table.name,
        "architectures": len(table.results),
        "infeasible %": 100 * table.infeasible,
        "sampler": str(contestant),
    }
    for look in _LOOKS:
        line[f"hypervolume % at {look}"] = 100 * float(1 - own[look].mean())
        line[f"regret % at {look}"] = 100 * float(own[look].mean())
    return line


def _ratio(regrets: Regrets, table: Table, peer: Contestant) -> float:
    theirs = float(regrets[table.name, str(peer)][200].mean())
    ours = float(regrets[table.name, str(OURS)][200].mean())
    return ours / theirs if theirs > 0 else (1.0 if ours == 0 else float("inf"))


def _tested(tables: Sequence[Table], regrets: Regrets) -> tuple[float, int]:
    """The share of pairs where ours is better, and how many where it is worse: regrets at 200, paired by seed."""
    differences = [
        regrets[table.name, str(OURS)][200] - regrets[table.name, str(peer)][200]
        for table, peer in itertools.product(tables, EQUIPPED)
    ]
    significant = holm([_p_value(each) for each in differences])
    better = [sure and each.mean() < 0 for sure, each in zip(significant, differences, strict=True)]
    worse = [sure and each.mean() > 0 for sure, each in zip(significant, differences, strict=True)]
    return float(np.mean(better)), int(sum(worse))


def _p_value(differences: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return 1.0 if not differences.any() else float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses are rejected at a family-wise level (Holm 1979): the k-th smallest against level / (n − k)."""
    order, rejected = np.argsort(p_values), [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
