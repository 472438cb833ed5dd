"""How long do the light commands take to start, beside the import of torch that they avoid?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.places import checkout
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.measure.statistics import paired_ratio
from bitwright.quant.errors import InputError

ROW = "cli_start"
ROUNDS = 15


def run(bench: Bench) -> list[Record]:
    """Starts each command in turn, round by round; the first round warms the disk's cache and does not count."""
    recipe = next((checkout() / "recipes").glob("*.yaml"))
    cli = str(Path(sys.executable).parent / "bitwright")
    commands = {
        "import torch": (sys.executable, "-c", "import torch"),
        "--help": (cli, "--help"),
        "validate": (cli, "validate", str(recipe)),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            took_s = _time_s(command)
            if turn:
                times[name].append(took_s)
    ratios = {name: paired_ratio(times[name], times["import torch"]) for name in ("--help", "validate")}
    table = [
        {
            "command": " ".join(Path(part).name for part in command),
            "÷ import torch": f"{ratios[name].value:.3f}" if name in ratios else "1",
            "median ms": f"{1e3 * median(times[name]):.0f}",
        }
        for name, command in commands.items()
    ]
    return [
        record(
            f"{ROW}.{name.strip('-')}",
            area="experiments",
            value=ratio.value,
            unit="× import torch",
            n=ROUNDS,
            reach=Reach("≤", 0.5, of="high"),
            spread=(ratio.low, ratio.high),
            table=table,
        )
        for name, ratio in ratios.items()
    ]


def _time_s(command: Sequence[str]) -> float:
    start = time.perf_counter()
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - start
    if answer.returncode:
        raise InputError(f"{' '.join(command)} ended with {answer.returncode}: {answer.stderr.strip()[-300:]}")
    return took_s
