"""An ONNX file in the ONNX Runtime of another Python, in a process of its own, and the version from which on it breaks.

Another Python is an interpreter (of a virtual environment) or a folder of packages (`pip install --target`) that this
one looks into first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.quant.errors import InputError
from bitwright.quant.parity.halving import first_broken
from bitwright.quant.parity.link import Array, Link, LinkError
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs

_WORKER = Path(__file__).with_name("parity_version_worker.py")
_LEVELS = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}


class Elsewhere:
    """A process of another Python that runs models.

    Attributes:
        place: as the user wrote it.
        version: of its ONNX Runtime.
    """

    def __init__(self, place: str) -> None:
        """Starts it.

        Raises:
            InputError: it is neither an interpreter nor a folder with `onnxruntime` in it, or has none that loads.
        """
        path, environment = Path(place), dict(os.environ)
        if (path / "onnxruntime").is_dir():
            command, environment["PYTHONPATH"] = [sys.executable], str(path.resolve())
        elif path.is_file() and os.access(path, os.X_OK):
            command = [str(path.absolute())]  # not resolved: a link in an environment stands for that environment
            environment.pop("PYTHONPATH", None)
        else:
            raise InputError(
                f"--runtime {place}: is neither a Python interpreter nor a folder with onnxruntime in it "
                "(python -m venv, or pip install --target)"
            )
        self.place = place
        self._process = subprocess.Popen(
            [*command, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        hello = self._answer()
        if hello is None:
            said = self._process.communicate()[1].decode(errors="replace").strip().splitlines() or ["no word"]
            raise InputError(f"--runtime {place}: has no ONNX Runtime that loads: {said[-1][:300]}")
        self.version = str(hello[0]["version"])

    def ask(self, question: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One question.

        Raises:
            RuntimeError: what the runtime said, or the signal that ended it.
        """
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
        answer, results = found
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return results

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

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what a process that crashed has not read
                    stream.close()
        self._process.wait()


class OtherVersionLink(OnnxRuntimeLink):
    """An ONNX file in the ONNX Runtime of another Python."""

    def __init__(self, path: Path, elsewhere: Elsewhere, level: str = "all", name: str = "") -> None:
        """Reads a file.

        Args:
            path: an ONNX model.
            elsewhere: the other Python.
            level: how far its runtime may optimise the file.
            name: of the link.
        """
        super().__init__(path, level, name or f"onnxruntime {elsewhere.version}, optimisations: {level}")
        self._elsewhere = elsewhere

    def _open(
        self, model: onnx.ModelProto, *, level: str | None = None, optimized: Path | None = None, **options: Any
    ) -> Any:
        settings = {
            "level": f"ORT_{_LEVELS[level or self.level]}",
            "optimized": str(optimized or ""),
            "without": [],
            "entries": {"session.x64quantprecision": "1"} if this_machine().saturates_u8s8 else {},
        }
        self._elsewhere.ask({"open": settings}, {"model": np.frombuffer(model.SerializeToString(), np.uint8)})
        return None if optimized is not None else self._elsewhere

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        results = self._elsewhere.ask({"run": list(names)}, feeds)
        return {name: results[str(place)] for place, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class VersionBisection:
    """What halving over versions found.

    Attributes:
        versions: all of them, the oldest first.
        agrees: the version nearest to `breaks` that computes the network; empty where none that was asked does.
        breaks: the version next to it that does not; empty where none that was asked does that.
        parity: of that version.
        comparisons: how many it took.
    """

    versions: tuple[str, ...]
    agrees: str
    breaks: str
    parity: LinkParity | None
    comparisons: int


def bisect_versions(first: Link, links: Mapping[str, Link], inputs: Sequence[Inputs]) -> VersionBisection:
    """Finds two versions next to each other of which one computes the network and the other does not.

    Args:
        first: what the file was made from.
        links: the file in each version.
        inputs: what to run on; not empty.
    """
    versions = sorted(links, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    known: dict[int, LinkParity] = {}

    def compare(place: int) -> LinkParity:
        if place not in known:
            known[place] = _of_one(first, links[versions[place]], inputs)
        return known[place]

    newest = compare(len(versions) - 1)
    if compare(0).agrees is newest.agrees:
        only = "" if newest.agrees else versions[0]
        return VersionBisection(
            versions=tuple(versions),
            agrees="" if only else versions[-1],
            breaks=only,
            parity=known[0] if only else None,
            comparisons=len(known),
        )
    # Versions are walked towards those that break, so that "so many steps break" holds from some place on.
    order = range(len(versions)) if not newest.agrees else range(len(versions) - 1, -1, -1)
    found = first_broken(len(versions) - 1, lambda steps: compare(order[steps]))
    assert found is not None  # the last one breaks
    steps, parity = found
    return VersionBisection(
        versions=tuple(versions),
        agrees=versions[order[steps - 1]],
        breaks=versions[order[steps]],
        parity=parity,
        comparisons=len(known),
    )


def _of_one(first: Link, second: Link, inputs: Sequence[Inputs]) -> LinkParity:
    """A version that cannot run the file breaks it."""
    try:
        return compare_links(first, second, inputs)
    except LinkError as error:
        return LinkParity(first=first.name, second=second.name, problem=str(error))
