"""The measuring process: imports the runtime once, and forks a child for each placement.

Reads requests from standard input and answers each with one line of JSON. A child that dies or hangs costs the model
that it was at, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Backend, get_backend
from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.kernels.minimal_model import minimal_model
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.table.forked import Say, Told, fork_again, in_fork
from bitwright.hw_constraints.table.placement import Effort, Loaded, Subject, plain
from bitwright.hw_constraints.table.reference import reference_model
from bitwright.quant.errors import InputError

_LOAD_SECONDS = 20.0  # a child may take so long for a model besides the time it is asked to look at it
_LARGEST_PAD = 2**20  # bytes; moves what a child allocates by another amount each time
_FORKS = 3  # placements of a child that took longer to load than to look
_LOADING, _LOADED, _OUTCOMES, _MISUSE = "loading", "loaded", "outcomes", "misuse"


class Worker:
    """A runtime, and the reference kernel for it."""

    def __init__(self, runtime: str, threads: int) -> None:
        self._runtime, self._threads = runtime, threads
        self._backend: Backend = get_backend(runtime)
        self._backend.version()  # says what is missing
        _import_once("onnx", runtime)
        self._reference = reference_model()

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Measures each job of a request; for each its placements' observations, or why there are none.

        Raises:
            InputError: the runtime does not run the reference kernel.
        """
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
            told = self._child([subjects[number] for number in open_], effort, placements, seed)
            if told.end is None:
                rounds = [message[_OUTCOMES] for message in told.messages if _OUTCOMES in message]
                for outcomes in rounds:
                    _note(found, open_, outcomes)
                return len(rounds)
            if told.messages and _LOADED in told.messages[-1] and len(open_) > 1:
                for number in open_:  # it died while they ran: which one it was, each alone will show
                    self._place({number: subjects[number]}, found, effort, 1, seed)
                return 1
            last = max((message[_LOADING] for message in told.messages if _LOADING in message), default=None)
            if last is None:
                raise InputError(f"{self._runtime} does not run the reference kernel: its process {told.end}")
            found[open_[last]] = {"rejected": f"the runtime's process {told.end}"}
        return placements

    def _child(self, subjects: Sequence[Subject], effort: Effort, placements: int, seed: int) -> Told:
        """Loads models in a child process and places them once, or several times where loading takes longer."""
        seconds = _LOAD_SECONDS + len(subjects) * (_LOAD_SECONDS / 4 + placements * effort.seconds)
        told = in_fork(lambda say: self._serve(subjects, effort, placements, seed, say), seconds=seconds)
        for message in told.messages:
            if _MISUSE in message:
                raise InputError(f"{self._runtime} does not run the reference kernel: {message[_MISUSE]}")
        return told

    def _serve(self, subjects: Sequence[Subject], effort: Effort, placements: int, seed: int, say: Say) -> None:
        """What the child does."""
        pad = np.ones(random.Random(seed).randrange(1, _LARGEST_PAD), np.uint8)
        try:
            loaded = Loaded(
                subjects,
                self._reference,
                self._backend,
                threads=self._threads,
                effort=effort,
                seed=seed,
                started=lambda number: say({_LOADING: number}),
            )
        except InputError as error:
            say({_MISUSE: str(error)})
            return
        say({_LOADED: True})

        def place(say: Say, number: int = 0) -> None:
            say({_OUTCOMES: [plain(each) for each in loaded.run(seed + number)]})

        # The threads of a runtime do not survive a fork.
        if self._threads == 1 and loaded.load_seconds > loaded.seconds:
            for number in range(min(placements, _FORKS)):
                fork_again(partial(place, number=number), say)
        else:
            place(say)
        del pad


def _note(found: list[dict[str, Any]], numbers: Sequence[int], outcomes: Sequence[dict[str, Any]]) -> None:
    """One placement's outcomes."""
    for number, outcome in zip(numbers, outcomes, strict=True):
        if "rejected" in outcome:
            found[number] = outcome
        else:
            found[number]["placements"].append(outcome)


def _import_once(*modules: str) -> None:
    """What a child would otherwise import each time; imports start no threads, which a fork would lose."""
    for module in modules:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)


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
