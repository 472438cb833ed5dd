"""The parent's end of the measuring process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any

from bitwright.hw_constraints.measure.conditions import QUIET_MALLOC
from bitwright.hw_constraints.table.placement import Effort
from bitwright.quant.errors import InputError

_WORKER = "bitwright.hw_constraints.table.worker"


class Bench:
    """A few measuring processes that take turns, from their start to their end.

    Forks of a process share its addresses. With these drawn anew for each process (ASLR), ratios of short kernels
    spread by 1.3 to 1.5 %, without by 0.6 to 0.7 % (12 processes each), so the placements of a model come from several.
    How much that helps two tables to agree has not been shown.

    Args:
        runtime: the backend's name.
        threads: of the runtime.
        processes: how many; all but one are asleep at any time.

    Raises:
        InputError: the runtime is not usable here.
    """

    def __init__(self, runtime: str, threads: int, *, processes: int = 3) -> None:
        self._stack = ExitStack()
        with self._stack:
            self._processes = [self._stack.enter_context(MeasuringProcess(runtime, threads)) for _ in range(processes)]
            self._stack = self._stack.pop_all()
        self._turn = 0

    def measure(
        self, jobs: Sequence[Mapping[str, Any]], *, placements: int, effort: Effort, seed: int
    ) -> list[dict[str, Any]]:
        """Asks the process whose turn it is.

        Args:
            jobs: `{"kernel": …}` or `{"file": path}`.
            placements: forks to measure each in.
            effort: of each placement.
            seed: of inputs and order.

        Returns:
            For each job `{"placements": [observation, …]}` or `{"rejected": message}`.

        Raises:
            InputError: the process died, or the runtime rejects the reference kernel.
        """
        self._turn = (self._turn + 1) % len(self._processes)
        request = {"jobs": list(jobs), "placements": placements, "effort": asdict(effort), "seed": seed}
        found: list[dict[str, Any]] = self._processes[self._turn].ask(request)["found"]
        return found

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class MeasuringProcess:
    """A measuring process, from its start to its end; a Ctrl-C at the terminal reaches only the parent.

    Args:
        runtime: the backend's name.
        threads: of the runtime.

    Raises:
        InputError: the runtime is not usable here.
    """

    def __init__(self, runtime: str, threads: int) -> None:
        # A pipe that nobody empties would block; closed in `__exit__`.
        self._complaints = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            start_new_session=True,
            env={**os.environ, **QUIET_MALLOC, "OMP_NUM_THREADS": str(threads)},
        )
        self.ask({"runtime": runtime, "threads": threads})

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            InputError: it cannot be served, or the process died.
        """
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "misuse" in answer:
            raise InputError(answer["misuse"])
        if not answer:
            code = self._process.wait()
            self._complaints.seek(0)
            last = (self._complaints.read().strip().splitlines() or ["it wrote nothing"])[-1]
            raise InputError(f"the measuring process ended with {code}: {last}")
        return answer

    def __enter__(self) -> MeasuringProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # it holds nothing that could be lost
        self._process.wait()
        self._complaints.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
