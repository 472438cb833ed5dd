"""Architecture × format × sparsity searched at once, against the architecture first and its formats and zeros after it.

Both ways take as many evaluations (inherited weights, pruned, quantized after training, scored in the runtime), propose
with the same sampler and know the same predicted latencies; the two-step way spends half of them on each step. Formats
come "after" in two senses: the architecture is found in float, or in int8 throughout. What was chosen was chosen on
`developed`: another space, another supernet, another seed. By predicted latencies the joint front was there better in
52 % and 23 % of the two others' ranges where only latencies were known of candidates, in 57 % and 76 % where their MACs
were known too, and in 99 % and 81 % where moreover 512 candidates in place of 128 were looked at for a proposal and
patterns that save no time on the target were not proposed; all against two-step fronts of the first setting. What is
recorded gives both ways the last one. Fronts are compared by latencies that are measured, those of one seed in the same
rounds: `front_shares` says how. The supernet is trained for minutes only, so accuracies are low (chance is 10 %).

Everything is kept; `BITWRIGHT_JOINT_DEVELOP=1` shows the figures of `developed` by predicted latencies, and
`BITWRIGHT_JOINT_UNTIMED=1` ends before anything is timed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.front_shares import Shares, shares_of_range
from bitwright.experiments.benchmarks.joint_contest import (
    FLOAT_FIRST,
    INT8_FIRST,
    JOINT,
    METHODS,
    JointContest,
)
from bitwright.experiments.benchmarks.joint_networks import RUNTIME, STAGES, JointNetworks, architecture_space
from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.tabular_networks import latency_table
from bitwright.hw_constraints.measure import measure_in_subprocess
from bitwright.nas.latency import device_name
from bitwright.nas.space import Candidate
from bitwright.nas.supernet import SupernetSettings
from bitwright.quant.errors import InputError

ROW = "search_joint"
EVALUATIONS = 60
SHARED = SupernetSettings(epochs=24, lr=1e-2, random=1, labels=1.0, checkpoint_every=25)
SEEDS, DEVELOPED_SEEDS = (0, 1), (100,)
_POOL = 512  # candidates that are looked at for a proposal
_SECONDS = 25.0  # of timing all fronts of a seed
_FIGURES = {FLOAT_FIRST: f"{ROW}.float_first", INT8_FIRST: f"{ROW}.int8_first"}
_CODE_TIMED = ("hw_constraints.measure", "hw_constraints.backends")


def developed(bench: Bench) -> JointContest:
    """What was chosen on."""
    return _contest(bench, "developed", (0.5, 1.5), (3, 5), seed=100)


def scored(bench: Bench) -> JointContest:
    """What is recorded."""
    return _contest(bench, "scored", (0.5, 1.0, 2.0), (1, 3), seed=0)


def _contest(
    bench: Bench, name: str, widths: tuple[float, ...], kernels: tuple[int, ...], *, seed: int
) -> JointContest:
    folder = bench.cache / ROW / name
    shared = replace(SHARED, seed=seed)
    networks = JointNetworks(architectures=architecture_space(widths, kernels), shared=shared, folder=folder)
    return JointContest(
        name=name,
        networks=networks,
        evaluations=EVALUATIONS,
        latencies=latency_table(bench.cache),
        folder=folder,
        pool=_POOL,
    )


def run(bench: Bench) -> list[Record]:
    """Every search that is not kept yet, then its fronts in time, then the figures.

    Raises:
        InputError: only the searches were asked for, or what was developed on; what was found is kept.
    """
    if os.environ.get("BITWRIGHT_JOINT_DEVELOP") == "1":
        contest = developed(bench)
        lines = [_lines(contest, seed, _predicted(contest, seed)) for seed in DEVELOPED_SEEDS]
        raise InputError("\n".join(str(line) for seed in lines for line in seed))
    contest = scored(bench)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for seed in SEEDS:
        for candidate in _candidates(contest, seed).values():
            contest.networks.exported(candidate)
    if os.environ.get("BITWRIGHT_JOINT_UNTIMED") == "1":
        raise InputError(f"{ROW}: the searches are kept; run it again, alone on the machine, to time their fronts")
    measured = {seed: _measured(contest, seed) for seed in SEEDS}
    table = [line for seed in SEEDS for line in _lines(contest, seed, measured[seed])]
    records = []
    for method, name in _FIGURES.items():
        better = [100 * _shares(contest, method, seed, measured[seed]).better for seed in SEEDS]
        records.append(
            record(
                name,
                area="nas",
                value=float(np.mean(better)),
                unit="% of its range that the joint front dominates",
                reach=Reach("≥", 80),
                n=len(SEEDS),
                table=table,
            )
        )
    return records


def _candidates(contest: JointContest, seed: int) -> dict[str, Candidate]:
    return {each.key: each for method in METHODS for each in contest.found(method, seed)}


def _predicted(contest: JointContest, seed: int) -> dict[str, float]:
    return {key: contest.predicted_ms(each) for key, each in _candidates(contest, seed).items()}


def _measured(contest: JointContest, seed: int) -> Mapping[str, float]:
    """Milliseconds of each network on a front, all in the same rounds; timed once."""
    candidates = _candidates(contest, seed)

    def look() -> dict[str, float]:
        files = {key: (contest.networks.file(each), RUNTIME) for key, each in candidates.items()}
        found = measure_in_subprocess(files, threads=1, max_seconds=_SECONDS)
        first = next(iter(files))
        ms = found.latency(first).median_us / 1e3
        return {key: ms * found.ratio(key, first).value for key in files}

    identity = f"{sorted(candidates)} {contest.networks.shared} {device_name(RUNTIME)}"
    return kept(contest.folder / "timed", f"seed-{seed}", identity, _CODE_TIMED, look)


def _shares(contest: JointContest, method: str, seed: int, ms: Mapping[str, float]) -> Shares:
    own, others = (
        [(ms[each.key], contest.networks.accuracy(each)) for each in contest.found(name, seed)]
        for name in (JOINT, method)
    )
    return shares_of_range(own, others)


def _lines(contest: JointContest, seed: int, ms: Mapping[str, float]) -> list[dict[str, object]]:
    """Of one seed: the shares, then the fronts."""
    lines: list[dict[str, object]] = []
    for method in _FIGURES:
        shares = _shares(contest, method, seed, ms)
        predicted = _shares(contest, method, seed, _predicted(contest, seed))
        lines.append(
            {
                "seed": seed,
                "way": method,
                "joint better %": 100 * shares.better,
                "same network %": 100 * shares.equal,
                "joint worse %": 100 * shares.worse,
                "better by prediction %": 100 * predicted.better,
                "evaluations": contest.evaluations,
            }
        )
    return [*lines, *({"seed": seed, "way": way, "front": _front(contest, way, seed, ms)} for way in METHODS)]


def _front(contest: JointContest, method: str, seed: int, ms: Mapping[str, float]) -> str:
    """`µs accuracy formats` of each network, the formats by stage (i, f), lower case where a stage has zeros."""
    return "; ".join(
        f"{1e3 * ms[each.key]:.0f} {contest.networks.accuracy(each):.1f} {_formats(each)}"
        for each in contest.found(method, seed)
    )


def _formats(candidate: Candidate) -> str:
    letters: Sequence[str] = [str(candidate.values[f"format_{stage}"])[0].upper() for stage in range(STAGES)]
    dense = [candidate.values[f"sparsity_{stage}"] == "dense" for stage in range(STAGES)]
    return "".join(letter if full else letter.lower() for letter, full in zip(letters, dense, strict=True))
