"""The table of patterns, and the one walk that applies them.

A pattern is asked about the last call of what it looks for, and answers with a `Match` or None; whether the calls
before it may fall away is decided here, for all patterns alike.
"""

from __future__ import annotations

from collections.abc import Callable

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network

Pattern = Callable[[Network, Call], Match | None]
PATTERNS: dict[str, list[Pattern]] = {}


def ends_in(*ops: str) -> Callable[[Pattern], Pattern]:
    """Registers a pattern for the operators that its last call may have."""

    def register(pattern: Pattern) -> Pattern:
        for op in ops:
            PATTERNS.setdefault(op, []).append(pattern)
        return pattern

    return register


def fuse_patterns(network: Network) -> None:
    """Applies every pattern where it holds; what one has made, a later one may continue."""
    for call in network.calls:
        for _ in range(_MOST_PER_CALL):
            if not _fuse(network, call):
                break


# A call that has become another operator may end another pattern; more than this would be a circle.
_MOST_PER_CALL = 4


def _fuse(network: Network, call: Call) -> bool:
    for pattern in PATTERNS.get(call.op, ()):
        match = pattern(network, call)
        if match is not None and network.may_replace(call, match):
            network.replace(call, match)
            return True
    return False
