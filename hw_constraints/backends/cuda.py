"""PyTorch eager mode on a CUDA device, see `cuda_session`. Not yet run on a device."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from bitwright.hw_constraints.backends.base import Session, check_threads
from bitwright.hw_constraints.backends.cuda_device import lacking_device
from bitwright.quant.errors import InputError


class CudaBackend:
    """PyTorch eager mode on the first CUDA device."""

    name = "cuda"
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
        from bitwright.hw_constraints.backends.cuda_session import CudaSession, on_device

        function, inputs = on_device(artifact, self)
        return CudaSession(function, threads=threads, inputs=inputs)


BACKEND = CudaBackend()
