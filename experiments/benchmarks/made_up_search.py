"""A search without networks, for rows about the search itself: scores follow from a formula of the candidate.

As a program it is the driver of such a search: `python -m … REQUEST`, a JSON object with `folder`, `scheduler`,
`database`, `trials`, `batch` and `seconds`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from bitwright.hw_constraints.target import load_target
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.settings import SearchSettings
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, Parameter, Value, spelled_as_declared
from bitwright.nas.workload import Workload

LOG = "evaluations.log"


@dataclass(frozen=True)
class Space:
    """Eight widths that trade accuracy for work; one in five combinations of the last two is refused."""

    choices: int = 6

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """See `SearchSpace`."""
        return tuple(
            Parameter(name=f"width_{place}", choices=tuple(range(1, self.choices + 1)), ordered=True)
            for place in range(8)
        )

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """See `SearchSpace`."""
        return spelled_as_declared(self.parameters, values)

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        """See `SearchSpace`."""
        return candidate.values

    def formats(self, candidate: Candidate, model: Any) -> Mapping[str, str]:
        """See `SearchSpace`."""
        return {}


@dataclass(frozen=True)
class MadeUpWorkload:
    """Names a target and says that nothing runs it; scores come from elsewhere, and no network is ever built."""

    fingerprint: Mapping[str, str] = field(default_factory=lambda: {"data": "made up"})
    target: Any = field(default_factory=lambda: load_target("x86-vnni"))
    runtime: str | None = None
    higher_is_better: bool = True
    scheme: Any = field(default_factory=SimpleNamespace)


def made_up_workload() -> Workload:
    """`MadeUpWorkload` as what a search takes."""
    return cast(Workload, MadeUpWorkload())


def result_of(candidate: Candidate) -> Result:
    """What a candidate's evaluation gives, always."""
    widths = [int(value) for value in candidate.values.values()]
    common: dict[str, Any] = {"key": candidate.key, "values": dict(candidate.values)}
    if (widths[-1] + widths[-2]) % 5 == 0:
        refused = Violation(constraint="lint.made_up", amount=1.0, reason="the last two widths add up to five or ten")
        return Result(**common, outcome=Outcome.INFEASIBLE, stage="lint", violations=(refused,))
    luck = int(hashlib.sha256(candidate.key.encode()).hexdigest()[:4], 16) / 0xFFFF
    figures = {"accuracy": 1 - 1 / sum(widths) - 0.01 * luck, "macs": float(sum(each**2 for each in widths))}
    return Result(**common, outcome=Outcome.SCORED, stage="measure", figures=figures)


def evaluate(candidate: Candidate, setup: Setup, *, seconds: float = 0.0) -> Result:
    """`result_of`, after some time, with a line in a log."""
    with (setup.folder / LOG).open("a") as log:
        log.write(f"{candidate.key}\n")
    time.sleep(seconds)
    return result_of(candidate)


def settings(trials: int, batch: int) -> SearchSettings:
    """TPE on accuracy and work."""
    return SearchSettings(trials=trials, objectives=("accuracy", "macs"), batch=batch)


def drive(request: Mapping[str, Any]) -> SearchOutcome:
    """Searches on a scheduler's workers, with the study in a database."""
    import bitwright.experiments.benchmarks.made_up_search as here  # the name under which workers find it
    from bitwright.nas.cluster import remote_cluster

    score = functools.partial(here.evaluate, seconds=request["seconds"])
    with remote_cluster(request["scheduler"], evaluate=score, on_wait=_say) as workers:
        return search(
            here.Space(),
            here.made_up_workload(),
            settings(request["trials"], request["batch"]),
            Path(request["folder"]),
            workers=workers,
            database=request["database"],
            on_wait=_say,
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    drive(json.loads(sys.argv[1]))
