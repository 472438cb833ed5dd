"""The CUDA device that torch sees: what the runtimes on it share, and need to know before they are loaded."""

from __future__ import annotations

import importlib.metadata
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends.base import Session, check_threads
from bitwright.quant.errors import InputError


def lacking_device() -> str | None:
    """Why torch cannot use a CUDA device here; None when it can."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no CUDA device"


def device_name() -> str:
    """The device's name with its compute capability: `NVIDIA H100 80GB HBM3 sm_90`."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} sm_{major}{minor}"


def cache_folder() -> Path:
    """Where caches that only hold for this device lie, by the XDG Base Directory specification; it is made."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "bitwright" / device_name().replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class CudaDeviceBackend(ABC):
    """A way to run torch modules on the first CUDA device; a subclass says how its session is opened."""

    name: str
    reads: tuple[str, ...] = ("pt2",)

    def available(self) -> str | None:
        """None when torch finds a CUDA device."""
        return lacking_device()

    def version(self) -> str:
        """The version of torch."""
        return importlib.metadata.version("torch")

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Copies a module to the device, or reads a file; see `Backend.load`."""
        check_threads(threads)
        if reason := self.available():
            raise InputError(f"backend {self.name!r} cannot be used here: {reason}")
        return self._open(artifact, threads=threads)

    @abstractmethod
    def _open(self, artifact: Any, *, threads: int) -> Session: ...
