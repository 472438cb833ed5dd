"""The table of readers: each turns one ONNX node into calls of ATen operators.

A reader takes a `Reader` and writes with `emit`; it raises `Misfit` where ATen cannot say what the node does.
"""

from __future__ import annotations

from collections.abc import Callable

from bitwright.quant.onnx_import.calls import Reader

Read = Callable[[Reader], None]
READERS: dict[str, Read] = {}


def reads(*op_types: str) -> Callable[[Read], Read]:
    """Registers a reader for operator types; those of other domains as `domain::type`."""

    def register(function: Read) -> Read:
        for op_type in op_types:
            if op_type in READERS:
                raise ValueError(f"operator type {op_type!r} has two readers")
            READERS[op_type] = function
        return function

    return register


def axis_of(value: int, rank: int) -> int:
    """An axis counted from the front."""
    return value % rank if rank else 0
