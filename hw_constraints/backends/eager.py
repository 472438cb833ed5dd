"""PyTorch eager mode: the reference that every other runtime is compared with.

Loads a module, a callable, a captured network, or a `.pt2` file of `torch.export.save`.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

from bitwright.hw_constraints.backends.base import Session, check_threads


class EagerBackend:
    """PyTorch eager mode on the CPU."""

    name = "eager"
    reads: tuple[str, ...] = ("pt2",)

    def available(self) -> str | None:
        """Always: torch is a dependency."""
        return None

    def version(self) -> str:
        """The version of torch."""
        return importlib.metadata.version("torch")

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Wraps a module or callable, or reads a file; see `Backend.load`."""
        from bitwright.hw_constraints.backends.torch_session import TorchSession, load_torch

        check_threads(threads)
        function, inputs = load_torch(artifact, self)
        return TorchSession(function, threads=threads, inputs=inputs)


BACKEND = EagerBackend()
