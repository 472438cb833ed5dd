"""PyTorch compiled by TorchInductor for a CUDA device, weights frozen, see `cuda_session`. Not yet run on a device."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from bitwright.hw_constraints.backends.base import Session, check_threads
from bitwright.hw_constraints.backends.cuda_device import lacking_device
from bitwright.hw_constraints.backends.inductor import compiled
from bitwright.quant.errors import InputError


class CudaInductorBackend:
    """TorchInductor's kernels (Triton and CUDA's libraries)."""

    name = "cuda_inductor"
    reads: tuple[str, ...] = ("pt2",)

    def available(self) -> str | None:
        """None when torch finds a CUDA device."""
        return lacking_device()

    def version(self) -> str:
        """The version of torch."""
        return importlib.metadata.version("torch")

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Copies a module to the device, or reads a file; it is compiled when it first runs. See `Backend.load`."""
        check_threads(threads)
        if reason := self.available():
            raise InputError(f"backend {self.name!r} cannot be used here: {reason}")
        from bitwright.hw_constraints.backends.cuda_session import CudaSession, on_device

        function, inputs = on_device(artifact, self)
        return CudaSession(compiled(function, freezing=True), threads=threads, inputs=inputs)


BACKEND = CudaInductorBackend()
