"""Figures as text: value with unit, interval, and where the number came from."""

from __future__ import annotations

import math

from bitwright.experiments.record import Figure
from bitwright.quant.sqnr import EXACT_DB

_PREFIXES = ("", "k", "M", "G", "T")


def format_value(value: float, unit: str) -> str:
    """`0.412 ms`, `98.20 %`, `31.5 dB`, `3.08 M MACs`, `151 kB`, and a bare number for ratios (unit `1`)."""
    if unit == "%":
        return f"{value:.2f} %"
    if unit == "dB":
        return "exact" if value >= EXACT_DB else f"{value:.1f} dB"
    if unit in ("bytes", "MAC"):
        return _with_prefix(value, "B" if unit == "bytes" else " MACs")
    if unit == "1":
        return _significant(value)
    return f"{_significant(value)} {unit}"


def format_interval(figure: Figure) -> str:
    """`95 % from 0.530 to 0.555`, `IQR 0.012`, or nothing."""
    if figure.low is not None and figure.high is not None:
        low, high = (_plain(bound, figure.unit) for bound in (figure.low, figure.high))
        return f"95 % from {low} to {high}"
    return f"IQR {_plain(figure.spread, figure.unit)}" if figure.spread is not None else ""


def format_change(value: float, unit: str) -> str:
    """A difference with its sign; differences of percentages are points."""
    text = format_value(abs(value), unit).replace("%", "points")
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{text}"


def provenance(figure: Figure) -> str:
    """What a figure was measured with or taken from, and over how many."""
    parts = [figure.source, f"n = {figure.n}" if figure.n is not None else ""]
    return " · ".join(part for part in parts if part)


def _plain(value: float, unit: str) -> str:
    return format_value(value, unit).removesuffix(f" {unit}")


def _significant(value: float) -> str:
    """At least three significant digits, without an exponent where that reads well."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, 2 - magnitude)}f}" if -4 <= magnitude < 6 else f"{value:.2e}"


def _with_prefix(value: float, unit: str) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{f'{value:.0f}' if power == 0 else _significant(value)} {_PREFIXES[power]}{unit}".replace("  ", " ")
