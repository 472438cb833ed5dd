"""PyTorch compiled by TorchInductor, weights frozen: the fastest that torch itself offers on the CPU."""

from __future__ import annotations

import shutil
from typing import Any

import torch

from bitwright.hw_constraints.backends.base import Session, check_threads
from bitwright.hw_constraints.backends.eager import TorchSession, argument_names, require_callable

_COMPILERS = ("g++", "clang++", "c++")


class InductorBackend:
    """TorchInductor's C++ code generator."""

    name = "inductor"

    def available(self) -> str | None:
        """None when a C++ compiler is on the path."""
        found = any(shutil.which(compiler) for compiler in _COMPILERS)
        return None if found else f"inductor needs a C++ compiler on the path ({', '.join(_COMPILERS)})"

    def version(self) -> str:
        """The version of torch."""
        return str(torch.__version__)

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Wraps a module or callable; it is compiled when it first runs. See `Backend.load`."""
        check_threads(threads)
        function = require_callable(artifact, self.name)
        return TorchSession(
            _compiled(function, freezing=True),
            threads=threads,
            arguments=argument_names(function),
            # Only here are fused kernels visible to the profiler: it costs a second compilation.
            profiled=_compiled(function, freezing=True, **{"cpp.enable_kernel_profile": True}),
        )


def _compiled(function: Any, **options: bool) -> Any:
    return torch.compile(function, backend="inductor", options=dict(options))


BACKEND = InductorBackend()
