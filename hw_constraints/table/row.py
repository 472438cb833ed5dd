"""One line of a latency table: a kernel, or a network, and how long it takes in relation to the reference kernel."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Row(ABC):
    """What is known of one subject.

    Attributes:
        ratio: its time in relation to the reference kernel's; NaN when it was rejected. A kernel whose cost drowns in
            the noise of what surrounds it may come out at or below 0.
        low: lower bound of the ratio's 95 % interval.
        high: upper bound of the ratio's 95 % interval.
        placements: processes that it was measured in; the interval is over these.
        rounds: triples of samples behind it, of all placements.
        disturbed: triples that were dropped because another process was served in between.
        basis: `wall time`; `processor time` when one thread was disturbed most of the time.
        date: when it was measured, UTC, ISO 8601.
        origin: `measured`.
        rejected: the runtime's own message when it would not run it; empty otherwise.
    """

    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    placements: int = 0
    rounds: int = 0
    disturbed: int = 0
    basis: str = ""
    date: str
    origin: str = "measured"
    rejected: str = ""

    @property
    @abstractmethod
    def key(self) -> str:
        """What the table finds it by."""

    @property
    def half_width(self) -> float:
        """Half of the interval, in the unit of the ratio."""
        return (self.high - self.low) / 2

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for NaN; `from_json` reads them back."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            InputError: a field is missing, unknown or no such value.
        """
        try:
            return cls(**{name: cls._value(name, value) for name, value in record.items()})
        except (KeyError, TypeError) as error:
            raise InputError(f"not a row of a latency table: {error}") from error

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        return math.nan if value is None else value


@dataclass(frozen=True, kw_only=True)
class KernelRow(_Row):
    """A kernel's latency, or why the runtime does not run it.

    Attributes:
        kernel: what was measured.
    """

    kernel: Kernel

    @property
    def key(self) -> str:
        """What the table finds it by."""
        return self.kernel.key

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        return Kernel.from_json(value) if name == "kernel" else super()._value(name, value)


@dataclass(frozen=True, kw_only=True)
class NetworkRow(_Row):
    """The latency of a whole network: what kernels cost when they run behind each other.

    Attributes:
        name: how reports call it.
        model_hash: SHA-256 of its file.
        kernels: what the runtime runs for it, in order.
    """

    name: str
    model_hash: str
    kernels: tuple[Kernel, ...]

    @property
    def key(self) -> str:
        """What the table finds it by: another file of the same name takes its place."""
        return self.name

    @classmethod
    def _value(cls, name: str, value: Any) -> Any:
        return tuple(map(Kernel.from_json, value)) if name == "kernels" else super()._value(name, value)


def hash_of_model(model: bytes) -> str:
    """SHA-256 of a network's file."""
    return hashlib.sha256(model).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Kernel):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
