"""How many lines does quantization-aware training change in the loops that projects' own documentation shows?

Five loops are stored in `dropin/` as they are and as changed. Each changed one runs, is taken up again from its own
checkpoint by a second process, and writes an ONNX file that ONNX Runtime runs.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bitwright.experiments.benchmarks import dropin
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.quant.errors import InputError, MissingExtraError

ROW = "qat_dropin"
_FILES = Path(dropin.__file__).parent
_MOST_LINES = 3
_MOST_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One loop: where it is stored, by how many processes it trains, and what it needs."""

    name: str
    processes: int = 1
    needs: str | None = None


LOOPS = (
    Loop(name="plain"),
    Loop(name="lightning", needs="lightning"),
    Loop(name="hf", needs="transformers"),
    Loop(name="ddp", processes=2),
    Loop(name="fsdp2", processes=2),
)


def run(bench: Bench) -> list[Record]:
    """Runs the five loops, original and changed."""
    for loop in LOOPS:
        if loop.needs is not None and find_spec(loop.needs) is None:
            raise MissingExtraError(f"row {ROW!r}", loop.needs)
    table = [_tried(loop) for loop in LOOPS]
    sound = [line for line in table if line["resumed"] and line["runs in ONNX Runtime"]]
    return [
        record(
            f"{ROW}.lines",
            area="qat",
            value=max(line["changed lines"] for line in table),
            unit="lines changed at most, the import among them",
            n=len(table),
            reach=Reach("≤", _MOST_LINES),
            table=table,
        ),
        record(
            f"{ROW}.loops",
            area="qat",
            value=len(sound),
            unit="loops that run, resume and export",
            n=len(table),
            reach=Reach("=", len(LOOPS)),
        ),
    ]


def _tried(loop: Loop) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "original").mkdir()
        (folder / "changed").mkdir()
        _start(loop, "original.py", folder / "original", 1)
        _start(loop, "changed.py", folder / "changed", 1)
        file = folder / "changed" / "model.onnx"
        first = file.read_bytes()
        _start(loop, "changed.py", folder / "changed", 2)
        return {
            "loop": loop.name,
            "changed lines": changed_lines(_FILES / loop.name),
            # From its checkpoint it trains on: a run that began again would write the first file once more.
            "resumed": file.read_bytes() != first,
            "runs in ONNX Runtime": _runs(file),
        }


def changed_lines(folder: Path) -> int:
    """Lines with text that the changed loop has and the original has not."""
    original, changed = (
        (folder / name).read_text(encoding="utf-8").splitlines() for name in ("original.py", "changed.py")
    )
    added = [line[2:] for line in difflib.ndiff(original, changed) if line.startswith("+ ")]
    return sum(bool(line.strip()) for line in added)


def _start(loop: Loop, file: str, folder: Path, epochs: int) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={loop.processes}"]
    command = [sys.executable, *(launcher if loop.processes > 1 else []), str(_FILES / loop.name / file)]
    done = subprocess.run(
        [*command, str(folder), str(epochs)],
        capture_output=True,
        text=True,
        timeout=_MOST_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise InputError(f"row {ROW!r}: {loop.name}/{file} ended with {done.returncode}: {done.stderr[-800:]}")


def _runs(file: Path) -> bool:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    (result, *_) = session.run(None, {given.name: np.zeros(given.shape, np.float32)})
    return bool(np.isfinite(result).all())
