"""A runtime of another Python, in a process of its own: what crashes there is said, and the comparison goes on.

Another Python is an interpreter (of a virtual environment) or a folder of packages (`pip install --target`) that this
one looks into first. Its packages need not go with this one's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.parity.link import Array

_WORKER = Path(__file__).with_name("parity_worker.py")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime that another Python may have.

    Attributes:
        package: the name of its folder among packages.
        title: what messages call it.
    """

    package: str
    title: str


ONNXRUNTIME = Runtime(package="onnxruntime", title="ONNX Runtime")
EXECUTORCH = Runtime(package="executorch", title="ExecuTorch")


class Elsewhere:
    """A process of another Python that runs models; one that ended is started again by the next model.

    Attributes:
        place: as the user wrote it.
        version: of its runtime.
    """

    def __init__(self, place: str, runtime: Runtime = ONNXRUNTIME) -> None:
        """Starts it.

        Raises:
            InputError: it is neither an interpreter nor a folder with the runtime in it, or has none that loads.
        """
        path, environment = Path(place), dict(os.environ)
        if (path / runtime.package).is_dir():
            command, environment["PYTHONPATH"] = [sys.executable], str(path.resolve())
        elif path.is_file() and os.access(path, os.X_OK):
            command = [str(path.absolute())]  # not resolved: a link in an environment stands for that environment
            environment.pop("PYTHONPATH", None)
        else:
            raise InputError(
                f"--runtime {place}: is neither a Python interpreter nor a folder with {runtime.package} in it "
                "(python -m venv, or pip install --target)"
            )
        self.place = place
        self._command = [*command, str(_WORKER), str(_WORKER.with_name(f"parity_worker_{runtime.package}.py"))]
        self._environment = environment
        hello = self._start()
        if hello is None:
            self.close()
            raise InputError(f"--runtime {place}: has no {runtime.title} that loads: {self._last_words[:300]}")
        self.version = str(hello[0]["version"])

    @classmethod
    def here(cls, runtime: Runtime) -> Elsewhere | None:
        """This Python's own; None where the runtime is not installed."""
        return cls(sys.executable, runtime) if importlib.util.find_spec(runtime.package) is not None else None

    def open(self, session: str, settings: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Loads a model in place of what had this key before; returns what is told of it.

        Raises:
            RuntimeError: what the runtime said, or the signal that ended it.
        """
        if self._process.poll() is not None:
            self.close()
            self._start()
        return self._ask({"session": session, "open": settings}, arrays)[0]

    def run(self, session: str, question: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Runs a loaded model once.

        Raises:
            RuntimeError: what the runtime said, or the signal that ended it.
        """
        return self._ask({"session": session, "run": question}, arrays)[1]

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what a process that crashed has not read
                    stream.close()
        self._process.wait()
        self._last_words = self._printed()
        self._errors.close()

    def _start(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,  # not a pipe, which nobody would empty
            env=self._environment,
        )
        return self._answer()

    def _ask(self, question: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]  # numpy's stubs take no mapping
        assert self._process.stdin is not None
        try:
            for part in (json.dumps(question).encode(), packed.getvalue()):
                self._process.stdin.write(struct.pack("<Q", len(part)) + part)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: what follows says how
        found = self._answer()
        if found is None:
            code = self._process.wait()
            end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RuntimeError(f"its process ended with {end}")
        if "error" in found[0]:
            raise RuntimeError(found[0]["error"])
        return found

    def _answer(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        parts = []
        assert self._process.stdout is not None
        for _ in range(2):
            head = self._process.stdout.read(8)
            if len(head) < 8:
                return None
            parts.append(self._process.stdout.read(struct.unpack("<Q", head)[0]))
        with np.load(io.BytesIO(parts[1]), allow_pickle=False) as archive:
            return json.loads(parts[0]), {name: archive[name] for name in archive.files}

    def _printed(self) -> str:
        """The last line on standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no word"
