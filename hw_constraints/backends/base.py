"""What a runtime is, and how one is found by name.

A new runtime is one file in this folder with a module-level `BACKEND`; third parties register an object of the same
kind through the entry-point group `bitwright.backends`. Each is tested by the contract suite.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from bitwright.quant.errors import InputError, MissingExtraError
from bitwright.quant.extension_point import ExtensionPoint

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a loaded artefact.

    Attributes:
        name: its name; for a torch callable the argument's.
        dtype: the element type in NumPy's spelling; empty when the artefact does not say.
        shape: None for a dimension that is not static; None for the whole when the artefact does not say.
        scale: of codes: real = scale * (code - zero_point); None for real values, or where there is no single scale.
        zero_point: the code of zero.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True)
class KernelTime:
    """One kernel as the runtime's own profiler saw it run.

    Attributes:
        name: the runtime's name of the node.
        op: the runtime's operator type.
        time_us: median over the profiled runs, in microseconds; 0 for what needed no work of its own (a view).
        provider: which part of the runtime ran it, and with which implementation where it says so.
        precision: what the kernel reads, by the runtime's own trace: `int8` (signed or unsigned), `int16`, `fp8`,
            `float32`, `float16`, `bfloat16`, or `other` (indices, shapes, or the trace does not say).
    """

    name: str
    op: str
    time_us: float
    provider: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class ExecutedNode:
    """A node of the graph that the runtime really runs.

    Attributes:
        name: the runtime's name, which `KernelTime.name` repeats.
        op: the runtime's operator type.
        inputs: names of the values it reads, as far as the runtime tells.
        outputs: names of the values it writes.
        originals: names of the nodes of the loaded file that it says went into this one.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded artefact, ready to run."""

    @property
    def threads(self) -> int:
        """Threads it runs with."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The runtime's options in force, in its own words."""

    @property
    def input_infos(self) -> tuple[TensorSpec, ...]:
        """What it takes."""

    @property
    def output_infos(self) -> tuple[TensorSpec, ...]:
        """What it gives; for torch callables known after the first run."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once.

        Raises:
            InputError: an input is missing, unknown or of the wrong shape; the runtime's own message is in it.
        """

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Runs `runs` times after a warm-up with the runtime's profiler on; one entry a kernel, in order."""

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The graph behind the runtime's own optimisations, in an order in which it can run."""


@runtime_checkable
class Backend(Protocol):
    """A runtime.

    Attributes:
        name: what users write: the name of its file here.
        reads: the kinds of files that it loads, by their names in `artifacts.KINDS`, the usual one first.
    """

    name: str
    reads: tuple[str, ...]

    def available(self) -> str | None:
        """None when it can be used here, else the reason why not."""

    def version(self) -> str:
        """The runtime's version.

        Raises:
            MissingExtraError: it is not installed.
        """

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Loads a file (path or its bytes); the torch references load a module or callable instead.

        Raises:
            MissingExtraError: the runtime is not installed.
            InputError: the runtime does not accept the artefact; its own message is in it.
        """


class PackagedBackend(ABC):
    """A runtime that is a Python package, installed by the extra of its name; a subclass says how a session is opened.

    Attributes:
        package: its name on the package index; the backend's name where nothing else is said.
        module: what is imported; the package's name where nothing else is said.
    """

    name: str
    reads: tuple[str, ...]
    package = ""
    module = ""

    def available(self) -> str | None:
        """None when it can be used here: the package is installed, and `_lacking` finds nothing."""
        return self._lacking() if self._is_installed() else f"package {self.package or self.name} is not installed"

    def version(self) -> str:
        """The package's version."""
        self._require()
        try:
            return importlib.metadata.version(self.package or self.name)
        except importlib.metadata.PackageNotFoundError:  # another package brings it, as onnxruntime-gpu does
            return str(importlib.import_module(self._module).__version__)

    def load(self, artifact: Path | bytes, *, threads: int = 1) -> Session:
        """Loads an artefact; see `Backend.load`."""
        from bitwright.hw_constraints.backends.artifacts import check_kind

        self._require()
        if reason := self._lacking():
            raise InputError(f"backend {self.name!r} cannot be used here: {reason}")
        check_threads(threads)
        check_kind(artifact, self)
        try:
            return self._open(artifact, threads=threads)
        except InputError as error:
            if isinstance(artifact, bytes | bytearray):
                raise
            from bitwright.hw_constraints.backends.blame import with_lines

            raise with_lines(error, Path(artifact)) from error

    @abstractmethod
    def _open(self, artifact: Path | bytes, *, threads: int) -> Session: ...

    def _require(self) -> None:
        if not self._is_installed():
            raise MissingExtraError(f"backend {self.name!r}", self.name)

    @property
    def _module(self) -> str:
        return self.module or self.package or self.name

    def _is_installed(self) -> bool:
        return importlib.util.find_spec(self._module) is not None

    def _lacking(self) -> str | None:
        """What else is missing on this machine, such as a device; None for nothing."""
        return None


BACKENDS = ExtensionPoint(
    kind="backend", package="bitwright.hw_constraints.backends", marker="BACKEND", group="bitwright.backends"
)


def list_backends() -> tuple[str, ...]:
    """Names of all runtimes, without importing them.

    Raises:
        InputError: a name is registered twice.
    """
    return BACKENDS.names()


def get_backend(name: str) -> Backend:
    """The runtime called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    return checked(BACKENDS.load(name), name)


def checked(candidate: object, name: str) -> Backend:
    """The same object, when it has what a backend needs.

    Raises:
        InputError: something is missing.
    """
    if not isinstance(candidate, Backend):
        raise InputError(f"backend {name!r}: {candidate!r} lacks name, reads, available, version or load")
    return candidate


def artifact_label(artifact: Any) -> str:
    """How messages call an artefact.

    Raises:
        InputError: it is a path where no file is.
    """
    if isinstance(artifact, bytes | bytearray):
        return f"model of {len(artifact)} bytes"
    path = Path(artifact)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return str(path)


def one_line(error: Exception) -> str:
    """A runtime's message without its line breaks."""
    return " ".join(str(error).split())


def check_inputs(inputs: Arrays, specs: Sequence[TensorSpec]) -> None:
    """Compares names and shapes with what the artefact takes.

    Raises:
        InputError: they differ.
    """
    expected = {spec.name for spec in specs}
    if set(inputs) != expected:
        raise InputError(f"inputs are {sorted(inputs)}; the model takes {sorted(expected)}")
    for spec in specs:
        shape = inputs[spec.name].shape
        if spec.shape is None:
            continue
        fits = len(shape) == len(spec.shape) and all(
            want in (None, got) for got, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise InputError(f"input {spec.name!r} has shape {shape}; the model takes {spec.shape}")


def check_threads(threads: int) -> None:
    """Refuses thread counts below one.

    Raises:
        InputError: it is.
    """
    if threads < 1:
        raise InputError(f"threads = {threads}; at least 1 is needed")
