"""Runtimes behind one small protocol: load, run, profile, version, and what they really execute."""

from bitwright.hw_constraints.backends.base import (
    Arrays,
    Backend,
    ExecutedNode,
    KernelTime,
    Session,
    TensorSpec,
    get_backend,
    list_backends,
)

__all__ = [
    "Arrays",
    "Backend",
    "ExecutedNode",
    "KernelTime",
    "Session",
    "TensorSpec",
    "get_backend",
    "list_backends",
]
