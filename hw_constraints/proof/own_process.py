"""A runtime in a process of its own: a file that ends the runtime is said to do so, and this process goes on.

Each runtime has one such process, which is kept for the next file: loading a runtime takes longer than most files do.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bitwright.hw_constraints.backends import Arrays, Backend, ExecutedNode, KernelTime, Session, TensorSpec
from bitwright.hw_constraints.measure.process import a_fault_of
from bitwright.quant.errors import InputError

WORKER = "bitwright.hw_constraints.proof.own_process_worker"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is told of a session once it is loaded; see `backends.Session`."""

    settings: Mapping[str, str]
    input_infos: tuple[TensorSpec, ...]
    output_infos: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What went wrong in the process.

    Attributes:
        message: of the error.
        is_refusal: whether it is an `InputError`; else `message` is a traceback.
    """

    message: str
    is_refusal: bool


class OwnProcessBackend:
    """A backend whose sessions live in another process; otherwise it is as the backend is."""

    def __init__(self, backend: Backend, file: Path) -> None:
        """Starts the process, unless it is there, and does not wait for it.

        Args:
            backend: which is found by its name in that process.
            file: what messages name if the runtime ends its process, be it with a part of that file alone.
        """
        self.name, self.reads = backend.name, backend.reads
        self._backend, self._file = backend, file
        _process_of(self.name)

    def available(self) -> str | None:
        """As the backend says."""
        return self._backend.available()

    def version(self) -> str:
        """As the backend says."""
        return self._backend.version()

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Loads there; see `Backend.load`.

        Raises:
            InputError: the runtime does not accept the artefact, or ended its process.
        """
        return _OwnProcessSession(_process_of(self.name), self._file, artifact, threads)


class _OwnProcessSession:
    def __init__(self, process: _Process, file: Path, artifact: Any, threads: int) -> None:
        self._process, self._file, self._key = process, file, process.next_key()
        # The process was started in the folder of that moment.
        is_relative = isinstance(artifact, Path) and not artifact.is_absolute()
        told: Loaded = self._ask("load", artifact, threads, os.getcwd() if is_relative else None)
        self.threads = threads
        self.settings, self.input_infos, self.output_infos = told.settings, told.input_infos, told.output_infos
        # Told with the next question: a collection may come in the middle of one.
        weakref.finalize(self, process.dropped.append, self._key)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        results: dict[str, npt.NDArray[Any]] = self._ask("run", dict(inputs))
        return results

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        kernels: list[KernelTime] = self._ask("profile", dict(inputs), runs)
        return kernels

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        nodes: tuple[ExecutedNode, ...] = self._ask("executed_graph")
        return nodes

    def _ask(self, method: str, *arguments: Any) -> Any:
        answer = self._process.ask(self._key, method, arguments)
        if isinstance(answer, _Ended):
            raise InputError(a_fault_of(f"{self._file}: {self._process.runtime}", answer.code))
        if isinstance(answer, Failed):
            raise InputError(answer.message) if answer.is_refusal else RuntimeError(answer.message)
        return answer


@dataclass(frozen=True)
class _Ended:
    code: int


class _Process:
    """A running worker and the pipe to it.

    Attributes:
        runtime: the backend's name.
        dropped: keys of sessions that nobody holds any longer.
    """

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.dropped: list[int] = []
        self._lock, self._keys = threading.Lock(), 0
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER, runtime, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def next_key(self) -> int:
        self._keys += 1
        return self._keys

    def ask(self, key: int, method: str, arguments: tuple[Any, ...]) -> Any:
        """The answer, or how the process has ended."""
        with self._lock:
            dropped, self.dropped[:] = list(self.dropped), []
            try:
                self._pipe.send((dropped, key, method, arguments))
                return self._pipe.recv()
            except (EOFError, OSError):
                return _Ended(self._process.wait())
            except BaseException:  # its answer would be taken for that to the next question
                self._process.kill()
                self._process.wait()
                raise


_running: dict[tuple[int, str], _Process] = {}


def _process_of(runtime: str) -> _Process:
    """The one of this process, which a fork of it shares with nobody."""
    key = os.getpid(), runtime
    if key not in _running or _running[key].has_ended:
        _running[key] = _Process(runtime)
    return _running[key]
