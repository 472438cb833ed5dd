"""Another process that keeps other processors busy while a network is timed: the same network, or memory traffic.

It goes and pauses at a byte on its standard input and answers each with the same byte, so that the timed side knows
which of both it measures; it ends when its input does, so that nothing is left behind by a run that was killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from bitwright.quant.errors import InputError

CO_RUNNERS = ("same", "memory")
_MODULE = "bitwright.hw_constraints.profile.co_runner"
_GO, _PAUSE = b"g", b"p"
_COPIED_BYTES = 256 * 2**20  # far more than a last-level cache holds
_CHUNK_BYTES = 4 * 2**20  # one step: a pause is answered within about a millisecond


class CoRunner:
    """The other process, as the timed side holds it.

    Attributes:
        description: what it does, in words.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], description: str) -> None:
        self.description = description
        self._process, self._errors = process, errors
        self._expect(_PAUSE)  # once it is ready

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it runs."""
        self._tell(_GO)
        try:
            yield
        finally:
            self._tell(_PAUSE)

    def _tell(self, command: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `_expect` says what its end was
            self._process.stdin.write(command)
        self._expect(command)

    def _expect(self, answer: bytes) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.read(1) != answer:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().decode(errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
            raise InputError(f"the co-running process ended: {last}")


@contextmanager
def co_runner(request: dict[str, Any], cpus: Sequence[int]) -> Iterator[CoRunner]:
    """Starts it, paused, on these processors; ends it.

    Raises:
        InputError: there is no such kind, or it does not start.
    """
    kind = request["co_runner"]
    if kind not in CO_RUNNERS:
        raise InputError(f"co-runner {kind!r}; there are: {', '.join(CO_RUNNERS)}")
    what = "copies memory" if kind == "memory" else f"runs the same network in {request['runtime']}"
    command = [sys.executable, "-m", _MODULE, json.dumps({**request, "cpus": list(cpus)})]
    with (
        tempfile.TemporaryFile() as errors,  # a pipe that nobody reads would fill up and stop it
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as process,
    ):  # leaving closes its input, at which it ends
        yield CoRunner(process, errors, f"a process on processor {', '.join(map(str, cpus))} that {what}")


def main(request: dict[str, Any]) -> None:
    """The other process itself."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cpus"])
    step = _copying() if request["co_runner"] == "memory" else _inferring(request)
    answers = sys.stdout.buffer
    runs = False
    _answer(answers, _PAUSE)
    while True:
        if not runs or select.select([0], [], [], 0)[0]:
            command = os.read(0, 1)
            if not command:
                return
            runs = command == _GO
            _answer(answers, command)
        else:
            step()


def _answer(answers: Any, command: bytes) -> None:
    answers.write(command)
    answers.flush()


def _copying() -> Callable[[], None]:
    import itertools

    import numpy as np

    source, target = (np.ones(_COPIED_BYTES // 8) for _ in range(2))
    size = _CHUNK_BYTES // 8
    places = itertools.cycle(range(0, len(source), size))

    def copy() -> None:
        at = next(places)
        target[at : at + size] = source[at : at + size]

    return copy


def _inferring(request: dict[str, Any]) -> Callable[[], None]:
    from bitwright.hw_constraints.profile.loading import loaded

    session, batch = loaded(request, threads=len(request["cpus"]))

    def run() -> None:
        session.run(batch)

    return run


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
