"""Is a training that is killed fifty times the training that was never killed, to the last bit?

`kill -9` falls at random moments of a training that saves every second step, now and then into the writing of a
checkpoint. Dropout, noise on the pictures and their order are drawn from generators that the checkpoint carries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.quant.errors import InputError

ROW = "qat_kills"
KILLS, STEPS, SEED = 50, 400, 0
_WORKER = "bitwright.experiments.benchmarks.killed_training"


def run(bench: Bench) -> list[Record]:
    """Trains twice, once through the kills."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER, folder, str(STEPS), str(KILLS), str(SEED)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise InputError(f"row {ROW!r}: the training ended with {done.returncode}: {done.stderr[-800:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    return [
        record(
            f"{ROW}.resumed",
            area="qat",
            value=float(seen["equal"] and not seen["steps that any life trained otherwise"]),
            unit="1: weights, file and every step's loss are those of the training that was never killed",
            n=seen["kills"],
            reach=Reach("=", 1),
            table=[seen],
        ),
        record(
            f"{ROW}.broken",
            area="qat",
            value=seen["broken"],
            unit="checkpoints that could not be read after a kill",
            n=seen["kills"],
            reach=Reach("=", 0),
        ),
    ]
