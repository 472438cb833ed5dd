"""Does the demo do what it promises in five minutes: the main job, a search that refuses early, a QAT that pays?

What `make demo` runs after the installation, from nothing, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.places import checkout
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.report_marks import read_marks
from bitwright.experiments.qat_result import QATResult
from bitwright.experiments.search_result import SearchResult
from bitwright.nas.result import Outcome
from bitwright.quant.errors import InputError

ROW = "demo"
# The lines of the Makefile's target, each a command and its recipe; a run's folder has the recipe's name.
STEPS = (("run", "digits"), ("run", "digits_qat"), ("search", "digits_search"))
MISUSE = 2


def run(bench: Bench) -> list[Record]:
    """Runs the demo once and reads what it left."""
    with tempfile.TemporaryDirectory() as folder:
        took_s = {recipe: _run(command, recipe, Path(folder)) for command, recipe in STEPS}
        runs = [Path(folder) / "runs" / recipe for _, recipe in STEPS]
        stages = [json.loads((each / "record.json").read_text())["stages"] for each in runs]
        marks = [read_marks((each / "report.html").read_text()) for each in runs]
    table = [
        {"recipe": recipe, "stage": name, "seconds": f"{stage['seconds']:.1f}"}
        for (_, recipe), found in zip(STEPS, stages, strict=True)
        for name, stage in found.items()
    ]
    return [
        record(
            f"{ROW}.minutes",
            area="experiments",
            value=sum(took_s.values()) / 60,
            unit="minutes",
            n=1,
            reach=Reach("≤", 5.0),
            table=table,
        ),
        record(
            f"{ROW}.unmarked_figures",
            area="experiments",
            value=float(sum(each.unmarked for each in marks)),
            unit="figures",
            n=sum(each.figures for each in marks),
            reach=Reach("=", 0.0),
        ),
        *_search(SearchResult.model_validate(stages[2]["search"]["result"])),
        _qat(QATResult.model_validate(stages[1]["qat"]["result"])),
    ]


def _run(command: str, recipe: str, folder: Path) -> float:
    bitwright = str(Path(sys.executable).parent / "bitwright")
    arguments = [bitwright, command, str(checkout() / "recipes" / f"{recipe}.yaml")]
    start = time.perf_counter()
    ended = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, check=False, env={"OMP_NUM_THREADS": "1", **os.environ}
    )
    took_s = time.perf_counter() - start
    if ended.returncode >= MISUSE:
        raise InputError(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")
    return took_s


def _search(search: SearchResult) -> list[Record]:
    results = [trial.result for trial in search.trials if not trial.repeated]
    infeasible = [result for result in results if result.outcome is Outcome.INFEASIBLE]
    common: dict[str, Any] = {"area": "nas", "n": len(results)}
    return [
        record(
            f"{ROW}.infeasible",
            value=100 * len(infeasible) / len(results),
            unit="% of candidates",
            reach=Reach("≥", 20.0),
            **common,
        ),
        record(
            f"{ROW}.infeasible_trained",
            value=sum(result.trained_seconds for result in infeasible),
            unit="seconds of training",
            reach=Reach("=", 0.0),
            **common,
        ),
    ]


def _qat(qat: QATResult) -> Record:
    gain = qat.gain
    spread = (gain.low, gain.high) if gain.low is not None and gain.high is not None else None
    return record(
        f"{ROW}.qat_gain",
        area="qat",
        value=gain.value,
        unit=f"{gain.unit} of {qat.metric}, {qat.scheme}",
        n=gain.n or 1,
        reach=Reach("≥", 0.0, of="low"),
        spread=spread,
        table=[{"network": name, qat.metric: getattr(qat, name).value} for name in ("reference", "ptq", "qat")],
    )
