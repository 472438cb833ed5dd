"""Asks a fresh process, set up for quiet timing, to measure something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bitwright.hw_constraints.measure.conditions import QUIET_MALLOC
from bitwright.quant.errors import InputError

_MISUSE = 2
_AT = "bitwright-at "  # begins the lines of `now_at`
_serving = False


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
    lines = done.stderr.strip().splitlines()
    at = [line.removeprefix(_AT) for line in lines if line.startswith(_AT)]
    said = [line for line in lines if not line.startswith(_AT)]
    last = (said or ["it wrote nothing"])[-1]
    if done.returncode == _MISUSE:
        raise InputError(last)
    if done.returncode < 0 and at:
        raise InputError(f"{a_fault_of(at[-1], done.returncode)}: {last}")
    if done.returncode:
        raise InputError(f"the measuring process ended with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def now_at(file: str, runtime: str) -> None:
    """Writes down which file a worker is about to give to which runtime: if that kills it, the message can say so."""
    if _serving:
        print(f"{_AT}{file}: {runtime}", file=sys.stderr, flush=True)


def a_fault_of(file_and_runtime: str, returncode: int) -> str:
    """That a runtime ended its process, in words.

    Args:
        file_and_runtime: `FILE: RUNTIME`.
        returncode: of that process; a signal where it is below 0.
    """
    return f"{file_and_runtime} ended its process with {_end(returncode)}, a fault of the runtime"


def _end(returncode: int) -> str:
    try:
        return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
    except ValueError:
        return f"signal {-returncode}"


def serve(answer: Callable[[dict[str, Any]], Any]) -> int:
    """What a worker's `main` does: one request from standard input; exit code 2 when it cannot be served."""
    global _serving
    _serving = True
    try:
        print(json.dumps(answer(json.load(sys.stdin))))
    except InputError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return _MISUSE
    return 0
