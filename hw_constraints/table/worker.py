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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Backend, get_backend
from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.kernels.minimal_model import minimal_model
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.table.placement import Effort, Subject, observe, plain
from bitwright.hw_constraints.table.reference import reference_model
from bitwright.quant.errors import InputError

_LOAD_SECONDS = 20.0  # a child may take so long for a model besides the time it is asked to look at it
_LARGEST_PAD = 2**20  # bytes; moves what a child allocates by another amount each time


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
            for placement in range(request["placements"]):
                self._place(subjects, found, effort, seed=request["seed"] + placement)
        return found

    def _subject(self, job: dict[str, Any]) -> Subject:
        if "file" in job:
            return Subject(model=Path(job["file"]).read_bytes())
        model = minimal_model(Kernel.from_json(job["kernel"]), self._runtime)
        return Subject(model=model.with_kernel, without=model.without_kernel, branches=model.branches)

    def _place(self, subjects: dict[int, Subject], found: list[dict[str, Any]], effort: Effort, seed: int) -> None:
        """One more placement of those that have not been rejected; without a model that kills its process."""
        while open_ := [number for number in subjects if "rejected" not in found[number]]:
            outcomes, at, end = self._fork([subjects[number] for number in open_], effort, seed)
            if outcomes is not None:
                break
            found[open_[at]] = {"rejected": f"the runtime's process {end}"}
        else:
            return
        for number, outcome in zip(open_, outcomes, strict=True):
            if "rejected" in outcome:
                found[number] = outcome
            else:
                found[number]["placements"].append(outcome)

    def _fork(self, subjects: Sequence[Subject], effort: Effort, seed: int) -> tuple[list[Any] | None, int, str]:
        """A child's outcomes; else None, the number of the model that it was at, and how it ended."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            self._be_child(subjects, effort, seed, writing)
        os.close(writing)
        at, outcomes = 0, None
        limit = time.monotonic() + _LOAD_SECONDS + len(subjects) * (_LOAD_SECONDS / 4 + effort.seconds)
        for line in _lines(reading, limit):
            message = json.loads(line)
            at, outcomes = message.get("at", at), message.get("outcomes")
        os.close(reading)
        hung = time.monotonic() >= limit
        if hung:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        end = "did not come to an end" if hung else f"ended with {status}"
        return outcomes, at, end

    def _be_child(self, subjects: Sequence[Subject], effort: Effort, seed: int, writing: int) -> None:
        def say(message: dict[str, Any]) -> None:
            os.write(writing, f"{json.dumps(message)}\n".encode())

        code = 1
        try:
            gc.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a runtime prints is no answer
            pad = np.ones(random.Random(seed).randrange(1, _LARGEST_PAD), np.uint8)
            outcomes = observe(
                subjects,
                self._reference,
                self._backend,
                threads=self._threads,
                effort=effort,
                seed=seed,
                started=lambda number: say({"at": number}),
            )
            say({"outcomes": [plain(each) for each in outcomes]})
            code = int(pad[0]) - 1
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
