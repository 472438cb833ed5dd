"""Asks a fresh process, set up for quiet timing, to measure something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bitwright.hw_constraints.measure.conditions import QUIET_MALLOC
from bitwright.quant.errors import InputError

_MISUSE = 2


def ask_worker(module: str, request: Mapping[str, Any], *, threads: int) -> Any:
    """The answer of `python -m MODULE` to a request; both are JSON, on its standard input and output.

    Raises:
        InputError: the request cannot be served, or the process died; its last line is in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **QUIET_MALLOC, "OMP_NUM_THREADS": str(threads)},
    )
    last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
    if done.returncode == _MISUSE:
        raise InputError(last)
    if done.returncode:
        raise InputError(f"the measuring process ended with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def serve(answer: Callable[[dict[str, Any]], Any]) -> int:
    """What a worker's `main` does: one request from standard input; exit code 2 when it cannot be served."""
    try:
        print(json.dumps(answer(json.load(sys.stdin))))
    except InputError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return _MISUSE
    return 0
