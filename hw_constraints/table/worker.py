"""The measuring process: imports the runtime once, and forks a child for each placement.

Reads requests from standard input and answers each with one line of JSON. A child that dies or hangs costs the model
that it was at, nothing else.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Backend, get_backend
from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.kernels.minimal_model import minimal_model
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.table.placement import Effort, Loaded, Subject, plain
from bitwright.hw_constraints.table.reference import reference_model
from bitwright.quant.errors import InputError

_LOAD_SECONDS = 20.0  # a child may take so long for a model besides the time it is asked to look at it
_LARGEST_PAD = 2**20  # bytes; moves what a child allocates by another amount each time
_FORKS = 3  # placements of a child that took long to load
_DEAR = 1.0  # times the time of looking: what takes longer to load is forked
_Say = Callable[[dict[str, Any]], None]


class Worker:
    """A runtime, and the reference kernel for it."""

    def __init__(self, runtime: str, threads: int) -> None:
        self._runtime, self._threads = runtime, threads
        self._backend: Backend = get_backend(runtime)
        self._backend.version()  # says what is missing
        _import_once("onnx", runtime)
        self._reference = reference_model()

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Measures each job of a request; for each its placements' observations, or why there are none."""
        found: list[dict[str, Any]] = [{} for _ in request["jobs"]]
        subjects: dict[int, Subject] = {}
        for number, job in enumerate(request["jobs"]):
            try:
                subjects[number] = self._subject(job)
            except InputError as error:
                found[number] = {"rejected": str(error)}
            else:
                found[number] = {"placements": []}
        effort = Effort(**request["effort"])
        with pinned(self._threads):  # children inherit the processors
            done = 0
            while done < request["placements"]:
                left = request["placements"] - done
                done += self._place(subjects, found, effort, left, seed=request["seed"] + done)
        return found

    def _subject(self, job: dict[str, Any]) -> Subject:
        if "file" in job:
            return Subject(model=Path(job["file"]).read_bytes())
        model = minimal_model(Kernel.from_json(job["kernel"]), self._runtime)
        return Subject(model=model.with_kernel, without=model.without_kernel, branches=model.branches)

    def _place(
        self, subjects: dict[int, Subject], found: list[dict[str, Any]], effort: Effort, placements: int, seed: int
    ) -> int:
        """At least one more placement of those that have not been rejected; without a model that kills its process.

        Returns:
            How many placements there were.
        """
        while open_ := [number for number in subjects if "rejected" not in found[number]]:
            child = self._fork([subjects[number] for number in open_], effort, placements, seed)
            if child.end is None:
                for outcomes in child.outcomes:
                    for number, outcome in zip(open_, outcomes, strict=True):
                        if "rejected" in outcome:
                            found[number] = outcome
                        else:
                            found[number]["placements"].append(outcome)
                return len(child.outcomes)
            if child.at is None and len(open_) > 1:  # while they ran: which one it was, each alone will show
                for number in open_:
                    self._place({number: subjects[number]}, found, effort, 1, seed)
                return 1
            found[open_[child.at or 0]] = {"rejected": f"the runtime's process {child.end}"}
        return placements

    def _fork(self, subjects: Sequence[Subject], effort: Effort, placements: int, seed: int) -> _Child:
        """Loads models in a child process and places them once, or several times where loading takes longer."""
        reading, writing = os.pipe()
        pids = [os.fork()]
        if not pids[0]:
            os.close(reading)
            _be_child(lambda say: self._serve(subjects, effort, placements, seed, say), writing)
        os.close(writing)
        child = _Child()
        limit = time.monotonic() + _LOAD_SECONDS + len(subjects) * (_LOAD_SECONDS / 4 + placements * effort.seconds)
        for line in _lines(reading, limit):
            message = json.loads(line)
            if "outcomes" in message:
                child.outcomes.append(message["outcomes"])
            elif "fork" in message:
                pids.append(message["fork"])
            else:
                child.at = message["at"]
        os.close(reading)
        hung = time.monotonic() >= limit
        if hung:
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1])
        if hung or status:
            child.end = "did not come to an end" if hung else f"ended with {status}"
        return child

    def _serve(self, subjects: Sequence[Subject], effort: Effort, placements: int, seed: int, say: _Say) -> None:
        """What the child does."""
        pad = np.ones(random.Random(seed).randrange(1, _LARGEST_PAD), np.uint8)
        loaded = Loaded(
            subjects,
            self._reference,
            self._backend,
            threads=self._threads,
            effort=effort,
            seed=seed,
            started=lambda number: say({"at": number}),
        )
        say({"at": None})
        count = 1
        # The threads of a runtime do not survive a fork.
        if self._threads == 1 and loaded.load_seconds > _DEAR * loaded.seconds:
            count = min(placements, _FORKS)

        def place(number: int) -> Callable[[_Say], None]:
            return lambda say: say({"outcomes": [plain(each) for each in loaded.run(seed + number)]})

        for number in range(count):
            if count == 1:
                place(number)(say)
            elif status := _forked(place(number), say):
                os._exit(status if status > 0 else 128 - status)
        del pad


@dataclass
class _Child:
    """What a child told: outcomes by placement, the model that it was loading, and how it ended when not well."""

    outcomes: list[list[dict[str, Any]]] = field(default_factory=list)
    at: int | None = 0
    end: str | None = None


def _forked(act: Callable[[_Say], None], say: _Say) -> int:
    """Acts in a fork of this process; how that ended."""
    pid = os.fork()
    if not pid:
        _exit_after(act, say)
    say({"fork": pid})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_child(act: Callable[[_Say], None], writing: int) -> None:
    """Acts in a forked process, and ends it."""

    def say(message: dict[str, Any]) -> None:
        os.write(writing, f"{json.dumps(message)}\n".encode())

    gc.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a runtime prints is no answer
    _exit_after(act, say)


def _exit_after(act: Callable[[_Say], None], say: _Say) -> None:
    code = 1
    try:
        act(say)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)  # no destructors: they take longer than the measurement


def _import_once(*modules: str) -> None:
    """What a child would otherwise import each time; imports start no threads, which a fork would lose."""
    for module in modules:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)


def _lines(descriptor: int, limit: float) -> Iterator[str]:
    """Lines until the end of the file or the time limit."""
    rest = b""
    while (left := limit - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)


def main() -> int:
    """Serves requests until standard input ends; the first line says runtime and threads."""
    setup = json.loads(sys.stdin.readline())
    try:
        worker = Worker(setup["runtime"], setup["threads"])
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps({"found": worker.answer(json.loads(line))}), flush=True)
    except InputError as error:
        print(json.dumps({"misuse": str(error)}), flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
