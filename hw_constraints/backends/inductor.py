"""PyTorch compiled by TorchInductor, weights frozen: the fastest that torch itself offers on the CPU.

Loads a module, a callable, a captured network, or a `.pt2` file of `torch.export.save`.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from typing import Any

from bitwright.hw_constraints.backends.base import Session, check_threads

_COMPILERS = ("g++", "clang++", "c++")


class InductorBackend:
    """TorchInductor's C++ code generator."""

    name = "inductor"
    reads: tuple[str, ...] = ("pt2",)

    def available(self) -> str | None:
        """None when a C++ compiler is on the path."""
        found = any(shutil.which(compiler) for compiler in _COMPILERS)
        return None if found else f"inductor needs a C++ compiler on the path ({', '.join(_COMPILERS)})"

    def version(self) -> str:
        """The version of torch."""
        return importlib.metadata.version("torch")

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Wraps a module or callable, or reads a file; it is compiled when it first runs. See `Backend.load`."""
        from bitwright.hw_constraints.backends.torch_session import TorchSession, load_torch

        check_threads(threads)
        function, inputs = load_torch(artifact, self)
        return TorchSession(
            compiled(function, freezing=True),
            threads=threads,
            inputs=inputs,
            # Only here are fused kernels visible to the profiler: it costs a second compilation.
            profiled=compiled(function, freezing=True, **{"cpp.enable_kernel_profile": True}),
        )


def compiled(function: Any, **options: bool) -> Any:
    """The function, to be compiled by Inductor when it first runs."""
    import torch

    return torch.compile(function, backend="inductor", options=dict(options))


BACKEND = InductorBackend()
