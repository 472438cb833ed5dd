"""A search without networks: scores follow from a formula, and every evaluation leaves a line in a log.

Run as a program, it searches in the folder that it is given; tests kill it.
"""

import functools
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.experiments.benchmarks.made_up_search import MadeUpWorkload as Workload
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.settings import SearchSettings
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, Parameter, Value, spelled_as_declared
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

LOG = "evaluations.log"


class OtherData:
    """A workload that has other data in every process but one."""

    runtime, higher_is_better, scheme = None, True, None

    def __init__(self, home: int) -> None:
        self.home, self.target = home, Workload().target

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"data read": "here" if os.getpid() == self.home else "there"}


@dataclass(frozen=True)
class Space:
    """Width and depth trade accuracy for work; other formats than int8 and float32 are refused, every `nan` fails."""

    widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    depths: tuple[int, ...] = (1, 2, 3, 4)
    formats: tuple[str, ...] = ("int8", "float32", "int16")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter(name="width", choices=self.widths, ordered=True),
            Parameter(name="depth", choices=self.depths, ordered=True),
            Parameter(name="format", choices=self.formats, ordered=False),
        )

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        return spelled_as_declared(self.parameters, values)

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        return {key: value for key, value in candidate.values.items() if key != "format"}

    def formats_of(self, candidate: Candidate) -> Mapping[str, str]:
        return {}


def result_of(candidate: Candidate) -> Result:
    width, depth, fmt = (candidate.values[name] for name in ("width", "depth", "format"))
    common: dict[str, Any] = {"key": candidate.key, "values": dict(candidate.values)}
    if fmt not in ("int8", "float32", "nan"):
        refused = Violation(constraint="lint.dtype", amount=1.0, reason=f"{fmt} is not permitted")
        return Result(**common, outcome=Outcome.INFEASIBLE, stage="lint", violations=(refused,))
    if fmt == "nan":
        return Result(**common, outcome=Outcome.FAILED, stage="quantize", reason="quantize: accuracy is nan")
    accuracy = 1 - 1 / (int(width) * int(depth)) - (0.05 if fmt == "int8" else 0.0)
    macs = float(int(width) ** 2 * int(depth) * (1 if fmt == "int8" else 3))
    figures = {"accuracy": accuracy, "macs": macs}
    return Result(**common, outcome=Outcome.SCORED, stage="measure", figures=figures, seconds={"train": 0.01})


def evaluate(candidate: Candidate, setup: Setup, *, seconds: float = 0.0) -> Result:
    with (setup.folder / LOG).open("a") as log:
        log.write(f"{candidate.key}\n")
    time.sleep(seconds)
    return result_of(candidate)


def deadly(candidate: Candidate, setup: Setup) -> Result:
    """Candidates in float take their process down."""
    result = evaluate(candidate, setup)
    if candidate.values["format"] == "float32":
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def without_data(candidate: Candidate, setup: Setup) -> Result:
    raise InputError("data.root = '/data': no such folder on this machine")


def settings(trials: int, **changes: Any) -> SearchSettings:
    return SearchSettings(**{"trials": trials, "objectives": ("accuracy", "macs"), **changes})


def run(folder: Path, *, trials: int = 20, seconds: float = 0.0, space: Any = None, **changes: Any) -> SearchOutcome:
    def score(candidate: Candidate, setup: Setup) -> Result:
        return evaluate(candidate, setup, seconds=seconds)

    return search(space or Space(), Workload(), settings(trials, **changes), folder, workers=InProcess(score))


def main(folder: str, trials: str, seconds: str, sampler: str, workers: str = "0", batch: str = "") -> None:
    """A search to be killed: in this process, or with so many workers and in batches."""
    if workers == "0":
        run(Path(folder), trials=int(trials), seconds=float(seconds), sampler=sampler)
        return
    import nas_synthetic  # the name under which workers find it

    from bitwright.nas.cluster import local_cluster

    asked = settings(int(trials), sampler=sampler, batch=int(batch))
    score = functools.partial(nas_synthetic.evaluate, seconds=float(seconds))
    with local_cluster(int(workers), evaluate=score) as cluster:
        search(nas_synthetic.Space(), nas_synthetic.Workload(), asked, Path(folder), workers=cluster)


if __name__ == "__main__":
    main(*sys.argv[1:])
