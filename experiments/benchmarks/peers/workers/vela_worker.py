"""Arm's Vela: writes the described network as TensorFlow Lite, compiles it with fixed options, reads its estimates."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from vela_tflite import write_tflite


def main() -> None:
    """Reads a request (JSON: network, arrays, folder, options by configuration), writes an answer (JSON)."""
    request = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(request["folder"])
    file = folder / "network.tflite"
    write_tflite(request["network"], np.load(request["arrays"]), file)
    answer = {name: _compile(file, folder / name, options) for name, options in request["options"].items()}
    text = json.dumps({"version": metadata.version("ethos-u-vela"), "runs": answer}, indent=1)
    Path(sys.argv[2]).write_text(text)


def _compile(file: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "ethosu.vela", str(file), "--output-dir", str(folder),
        "--verbose-performance", "--enable-debug-db", *options,
    ]  # fmt: skip
    start = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - start
    (folder / "log.txt").write_text(ended.stdout + ended.stderr)
    if ended.returncode:
        raise SystemExit(f"vela {' '.join(options)} failed: {ended.stderr[-600:] or ended.stdout[-600:]}")
    return {"wall_s": wall_s, "folder": str(folder), "summary": _summary(folder), "layers": _layers(folder)}


def _summary(folder: Path) -> dict[str, str]:
    """The whole network: one line of figures."""
    (file,) = folder.glob("*_summary_*.csv")
    with file.open(newline="") as lines:
        return next(csv.DictReader(lines))


def _layers(folder: Path) -> list[dict[str, str]]:
    """One line for each operation in the order of the schedule."""
    (file,) = folder.glob("*_per-layer.csv")
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


if __name__ == "__main__":
    main()
