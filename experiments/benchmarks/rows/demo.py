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
from bitwright.experiments.results import QATResult, SearchResult
from bitwright.nas.result import Outcome
from bitwright.quant.errors import InputError

ROW = "demo"
RECIPES = {"digits": "run", "digits_search": "search"}
MISUSE = 2


def run(bench: Bench) -> list[Record]:
    """Runs the demo once and reads what it left."""
    with tempfile.TemporaryDirectory() as folder:
        took_s = _run_demo(Path(folder))
        stages: dict[str, Any] = {}
        marks = []
        for name in RECIPES:
            run_folder = Path(folder) / "runs" / name
            stages |= json.loads((run_folder / "record.json").read_text())["stages"]
            marks.append(read_marks((run_folder / "report.html").read_text()))
    return [
        record(
            f"{ROW}.minutes",
            area="experiments",
            value=took_s / 60,
            unit="minutes",
            n=1,
            reach=Reach("≤", 5.0),
            table=[{"stage": name, "seconds": f"{stage['seconds']:.1f}"} for name, stage in stages.items()],
        ),
        record(
            f"{ROW}.unmarked_figures",
            area="experiments",
            value=float(sum(each.unmarked for each in marks)),
            unit="figures",
            n=sum(each.figures for each in marks),
            reach=Reach("=", 0.0),
        ),
        *_search(SearchResult.model_validate(stages["search"]["result"])),
        _qat(QATResult.model_validate(stages["qat"]["result"])),
    ]


def _run_demo(folder: Path) -> float:
    start = time.perf_counter()
    for name, command in RECIPES.items():
        recipe = checkout() / "recipes" / f"{name}.yaml"
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "bitwright"), command, str(recipe)],
            cwd=folder,
            env={"OMP_NUM_THREADS": "1", **os.environ},  # as the Makefile does
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode >= MISUSE:
            raise InputError(f"the demo's {name} ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")
    took_s = time.perf_counter() - start
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
