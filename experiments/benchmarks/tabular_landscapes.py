"""Made-up tables, for tests and for development only: samplers are tuned on these, and scored on `tabular_networks`.

Accuracies saturate in effects of single decisions, which go with their costs, and of pairs; latencies are sums of
products of neighbouring decisions' costs; the linter's refusals are combinations of choices, and a limit on memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.tabular_space import Table
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.sampling.grid import Floats, Grid
from bitwright.nas.space import Parameter

Codes = npt.NDArray[np.int64]

_SIZES = ((4, 3, 4, 3, 3, 4), (3,) * 7, (4, 4, 4, 3, 3, 3, 2), (5, 4, 4, 4, 5), (2, 3, 3, 2, 3, 3, 4, 3))
_REFUSED = (0.0, 0.35, 0.2, 0.45, 0.3)  # about so large a share
LANDSCAPES = range(len(_SIZES))
_SEED = 1000
_SAMPLES = 500  # accuracies are counted on so many, like real ones


def landscape(number: int, *, sizes: tuple[int, ...] | None = None) -> Table:
    """One of the made-up tables, always the same; `sizes` makes a smaller one of its kind."""
    rng = np.random.default_rng(_SEED + number)
    sizes = _SIZES[number] if sizes is None else sizes
    ordered = [bool(rng.random() < 0.75) for _ in sizes]
    space = DeclaredSpace(
        own=tuple(
            Parameter(
                name=f"choice_{i}", choices=tuple(range(n)) if is_ordered else tuple("abcdef"[:n]), ordered=is_ordered
            )
            for i, (n, is_ordered) in enumerate(zip(sizes, ordered, strict=True))
        )
    )
    codes = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1).astype(np.int64)
    costs = [
        np.sort(rng.uniform(0.3, 2.0, n)) if each else rng.uniform(0.3, 2.0, n)
        for n, each in zip(sizes, ordered, strict=True)
    ]
    latency = _latency(codes, costs, rng)
    memory = sum(cost[codes[:, i]] * rng.uniform(0, 1) for i, cost in enumerate(costs))
    accuracy = _accuracy(codes, costs, rng)
    refused = _refused(codes, sizes, np.asarray(memory), _REFUSED[number])
    grid, results = Grid(space), {}
    for code, acc, ms, is_refused in zip(codes.tolist(), accuracy, latency, refused, strict=True):
        candidate = grid.candidate(tuple(code))
        violations = (Violation(constraint="lint.made_up", amount=1.0, reason="made up"),) if is_refused else ()
        results[candidate.key] = Result(
            key=candidate.key, values=dict(candidate.values), stage="table", violations=violations,
            outcome=Outcome.INFEASIBLE if is_refused else Outcome.SCORED,
            figures={"predicted_ms": float(ms)} | ({} if is_refused else {"accuracy": float(acc)}),
            network=candidate.key,
        )  # fmt: skip
    return Table(name=f"landscape-{number}", space=space, results=results)


def _latency(codes: Codes, costs: list[Floats], rng: np.random.Generator) -> Floats:
    latency = np.full(len(codes), 0.3)
    for i, cost in enumerate(costs):
        j = (i + 1) % len(costs)
        latency += cost[codes[:, i]] * costs[j][codes[:, j]] * rng.uniform(0.2, 1)
    return latency


def _accuracy(codes: Codes, costs: list[Floats], rng: np.random.Generator) -> Floats:
    alone = np.zeros(len(codes))
    for i, cost in enumerate(costs):
        effect = 0.6 * (cost - cost.mean()) / cost.std() + 0.5 * rng.normal(size=len(cost))
        alone += effect[codes[:, i]] * rng.gamma(1.0, 1.0)
    pairs = np.zeros(len(codes))
    for _ in costs:
        i, j = rng.choice(len(costs), 2, replace=False)
        pairs += rng.normal(size=(len(costs[i]), len(costs[j])))[codes[:, i], codes[:, j]]
    quality = alone / alone.std() + 0.4 * pairs / pairs.std()
    accuracy = 0.95 - 0.25 * np.exp(-0.6 * (quality - quality.min())) + 0.003 * rng.normal(size=len(codes))
    rounded: Floats = np.round(accuracy * _SAMPLES) / _SAMPLES
    return rounded


def _refused(codes: Codes, sizes: tuple[int, ...], memory: Floats, share: float) -> Floats:
    if share == 0:
        return np.zeros(len(codes), dtype=bool)
    limit = np.quantile(memory, 1 - 0.6 * share)
    corner = (codes[:, 0] == sizes[0] - 1) & (codes[:, 1] == 0)
    pair = (codes[:, 2] == 0) & (codes[:, 3] == 1) if len(sizes) > 3 else corner
    refused: Floats = (memory > limit) | corner | pair
    return refused
