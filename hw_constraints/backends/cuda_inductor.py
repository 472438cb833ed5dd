"""PyTorch compiled by TorchInductor for a CUDA device, weights frozen, see `cuda_session`. Not yet run on a device."""

from __future__ import annotations

from typing import Any

from bitwright.hw_constraints.backends.base import Session
from bitwright.hw_constraints.backends.cuda_device import CudaDeviceBackend
from bitwright.hw_constraints.backends.inductor import compiled


class CudaInductorBackend(CudaDeviceBackend):
    """TorchInductor's kernels (Triton and CUDA's libraries); a network is compiled when it first runs."""

    name = "cuda_inductor"

    def _open(self, artifact: Any, *, threads: int) -> Session:
        from bitwright.hw_constraints.backends.cuda_session import CudaSession, on_device

        function, inputs = on_device(artifact, self)
        return CudaSession(compiled(function, freezing=True), threads=threads, inputs=inputs)


BACKEND = CudaInductorBackend()
