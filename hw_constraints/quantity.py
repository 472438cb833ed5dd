"""Numbers with a unit, as a data sheet writes them: `32 MiB`, `4.8 TB/s`, `1 GHz`, `1024 MAC/cycle`.

A unit is never optional: 32 MB and 32 MiB differ by 5 %.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum


class Dimension(StrEnum):
    """What a figure counts; the value is the base unit that `Quantity.value` is in."""

    SIZE = "B"
    BANDWIDTH = "B/s"
    FREQUENCY = "Hz"
    MACS_PER_CYCLE = "MAC/cycle"
    OPERATIONS_RATE = "OP/s"
    POWER = "W"
    CYCLES = "cycles"


_SIZES = {
    "B": 1.0,
    **{f"{prefix}B": 10.0**power for prefix, power in (("k", 3), ("M", 6), ("G", 9), ("T", 12))},
    **{f"{prefix}iB": 2.0**power for prefix, power in (("K", 10), ("M", 20), ("G", 30), ("T", 40))},
}
_UNITS: dict[Dimension, dict[str, float]] = {
    Dimension.SIZE: _SIZES,
    Dimension.BANDWIDTH: {f"{unit}/s": factor for unit, factor in _SIZES.items()},
    Dimension.FREQUENCY: {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    Dimension.MACS_PER_CYCLE: {"MAC/cycle": 1.0},
    # One multiply-accumulate is two operations wherever a vendor counts OPS.
    Dimension.OPERATIONS_RATE: {"GOPS": 1e9, "TOPS": 1e12, "GFLOPS": 1e9, "TFLOPS": 1e12},
    Dimension.POWER: {"mW": 1e-3, "W": 1.0},
    Dimension.CYCLES: {"cycles": 1.0},
}
_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?) ([A-Za-z]+(?:/[a-z]+)?)")


@dataclass(frozen=True)
class Quantity:
    """A value in base units, and how it was written."""

    value: float
    dimension: Dimension
    text: str

    def __str__(self) -> str:
        return self.text


def parse_quantity(text: str, dimension: Dimension) -> Quantity:
    """Reads `text` as a positive quantity of one dimension.

    Raises:
        ValueError: no number, no unit, or a unit of something else; the message lists the units.
    """
    units = _UNITS[dimension]
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a number, a space and a unit ({', '.join(units)})")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"unit {unit!r} is none of {', '.join(units)}")
    value = float(number) * units[unit]
    if not (value > 0 and math.isfinite(value)):
        raise ValueError("must be greater than 0")
    return Quantity(value, dimension, text.strip())
