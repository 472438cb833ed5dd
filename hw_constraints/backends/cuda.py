"""PyTorch eager mode on a CUDA device, see `cuda_session`. Not yet run on a device."""

from __future__ import annotations

from typing import Any

from bitwright.hw_constraints.backends.base import Session
from bitwright.hw_constraints.backends.cuda_device import CudaDeviceBackend


class CudaBackend(CudaDeviceBackend):
    """PyTorch eager mode on the first CUDA device."""

    name = "cuda"

    def _open(self, artifact: Any, *, threads: int) -> Session:
        from bitwright.hw_constraints.backends.cuda_session import CudaSession, on_device

        function, inputs = on_device(artifact, self)
        return CudaSession(function, threads=threads, inputs=inputs)


BACKEND = CudaBackend()
