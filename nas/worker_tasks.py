"""What runs on a worker of a cluster: evaluations, each under its candidate's hash, refused where they would differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitwright.hw_constraints
import bitwright.nas
import bitwright.quant
from bitwright.nas.objective import time_scored
from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.standing import Standing
from bitwright.nas.workers import Evaluate
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Software:
    """What a result follows from besides candidate and setup: workers with another one are refused."""

    version: str
    code: str

    def __str__(self) -> str:
        return f"bitwright {self.version} ({self.code})"


@cache
def software() -> Software:
    """Of this process: the version, and a hash of the code of quant, hw_constraints and nas."""
    digest = hashlib.sha256()
    for package in (bitwright.quant, bitwright.hw_constraints, bitwright.nas):
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return Software(version=version("bitwright"), code=digest.hexdigest()[:12])


def given(setup: Setup) -> Setup:
    """What all evaluations share, as a task of its own: whoever lost it runs it again."""
    return setup


def evaluated(
    evaluate: Evaluate,
    candidate: Candidate,
    standing: Standing | None,
    setup: Setup,
    fingerprint: Mapping[str, Any],
    wanted: Software,
    timed: bool,
) -> Result:
    """On a worker: looks the candidate up, or evaluates it and writes its result unless its latency is to come."""
    _check_worker(setup, fingerprint, wanted)
    files = ResultFiles(setup.results)
    known = files.get(candidate.key)
    if known is not None:
        return known
    result = evaluate(candidate, setup.against(standing))
    if not timed or result.outcome is not Outcome.SCORED:
        files.put(result)
    return result


def _check_worker(setup: Setup, fingerprint: Mapping[str, Any], wanted: Software) -> None:
    """Refuses to evaluate where results would be others than the driver's.

    Raises:
        InputError: this worker runs other code, or its data, model or target are not the driver's; names it.
    """
    from distributed import get_worker

    address = get_worker().address
    if software() != wanted:
        raise InputError(
            f"worker {address} runs {software()}, the driver {wanted}; install the same on both, "
            "then start the search again"
        )
    try:
        here = dict(setup.workload.fingerprint)
    except (InputError, OSError) as error:
        raise InputError(f"worker {address} lacks what the search needs: {error}") from None
    for name, value in fingerprint.items():
        if here.get(name) != value:
            raise InputError(
                f"worker {address}: {name} is {here.get(name)!r} there and {value!r} where the driver runs; give both "
                "the same, then start the search again"
            )


def timed_result(result: Result, setup: Setup) -> Result:
    """On the worker with the device: adds the latency to a result of `evaluated`."""
    files = ResultFiles(setup.results)
    known = files.get(result.key)
    if known is not None:
        return known
    result = time_scored(result, setup)
    files.put(result)
    return result
