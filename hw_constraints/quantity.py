"""Numbers with a unit, as a data sheet writes them: `32 MiB`, `4.8 TB/s`, `1 GHz`, `1024 MAC/cycle`, `0.6 pJ/MAC`.

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
    BYTES_PER_CYCLE = "B/cycle"
    FREQUENCY = "Hz"
    MACS_PER_CYCLE = "MAC/cycle"
    ELEMENTS_PER_CYCLE = "elements/cycle"
    OPERATIONS_RATE = "OP/s"
    POWER = "W"
    CYCLES = "cycles"
    CYCLES_PER_ELEMENT = "cycles/element"
    TIME = "s"
    ENERGY_PER_BYTE = "J/B"
    ENERGY_PER_MAC = "J/MAC"
    COUNT = "elements"
    RATIO = "%"


_SIZES = {
    "B": 1.0,
    **{f"{prefix}B": 10.0**power for prefix, power in (("k", 3), ("M", 6), ("G", 9), ("T", 12))},
    **{f"{prefix}iB": 2.0**power for prefix, power in (("K", 10), ("M", 20), ("G", 30), ("T", 40))},
}
_UNITS: dict[Dimension, dict[str, float]] = {
    Dimension.SIZE: _SIZES,
    Dimension.BANDWIDTH: {f"{unit}/s": factor for unit, factor in _SIZES.items()},
    Dimension.BYTES_PER_CYCLE: {"B/cycle": 1.0, "bit/cycle": 1 / 8},
    Dimension.FREQUENCY: {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    Dimension.MACS_PER_CYCLE: {"MAC/cycle": 1.0},
    Dimension.ELEMENTS_PER_CYCLE: {"elements/cycle": 1.0},
    # One multiply-accumulate is two operations wherever a vendor counts OPS.
    Dimension.OPERATIONS_RATE: {"GOPS": 1e9, "TOPS": 1e12, "GFLOPS": 1e9, "TFLOPS": 1e12},
    Dimension.POWER: {"mW": 1e-3, "W": 1.0},
    Dimension.CYCLES: {"cycles": 1.0},
    Dimension.CYCLES_PER_ELEMENT: {"cycles/element": 1.0},
    Dimension.TIME: {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0},
    Dimension.ENERGY_PER_BYTE: {"pJ/B": 1e-12, "pJ/bit": 8e-12},
    Dimension.ENERGY_PER_MAC: {"fJ/MAC": 1e-15, "pJ/MAC": 1e-12},
    Dimension.COUNT: dict.fromkeys(("elements", "channels", "banks", "port", "ports", "transactions"), 1.0),
    Dimension.RATIO: {"%": 0.01},
}
_QUANTITY = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?) (%|[A-Za-z]+(?:/[A-Za-z]+)?)", re.ASCII)


@dataclass(frozen=True)
class Quantity:
    """A value in base units, and how it was written."""

    value: float
    dimension: Dimension
    text: str

    def __str__(self) -> str:
        return self.text


def parse_quantity(text: str, *dimensions: Dimension) -> Quantity:
    """Reads `text` as a positive quantity of one of the dimensions.

    Raises:
        ValueError: no number, no unit, or a unit of something else; the message lists the units.
    """
    units = {unit: (dimension, factor) for dimension in dimensions for unit, factor in _UNITS[dimension].items()}
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a number, a space and a unit ({', '.join(units)})")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"unit {unit!r} is none of {', '.join(units)}")
    dimension, factor = units[unit]
    value = float(number) * factor
    if not (value > 0 and math.isfinite(value)):
        raise ValueError("must be greater than 0")
    return Quantity(value, dimension, text.strip())
