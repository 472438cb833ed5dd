"""A stretch of measuring into a table: when, on how busy a machine, and how long the reference kernel took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Session:
    """The surroundings of rows that were measured in one go.

    Attributes:
        started: UTC, ISO 8601; tells sessions of a table apart.
        seconds: how long it took so far.
        kernels: measured or rejected in it.
        reference_us: median of the reference kernel's latency.
        spin_turns_per_us: `spin_turns_per_us` at its start.
        load_before: the machine's load average at the start.
        load_after: the machine's load average at the end.
    """

    started: str
    seconds: float
    kernels: int
    reference_us: float
    spin_turns_per_us: float
    load_before: float
    load_after: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Session:
        """Reads what `to_json` wrote.

        Raises:
            InputError: a field is missing or unknown.
        """
        try:
            return cls(**record)
        except TypeError as error:
            raise InputError(f"not a session of a latency table: {error}") from error
