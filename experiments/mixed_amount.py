"""A budget with its unit: `3.2 ms`, `1.5 MB`, `40 µJ`."""

from __future__ import annotations

import re

from bitwright.quant.errors import InputError

_UNITS = {
    "latency": {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3},
    "energy": {"nJ": 1e-3, "uJ": 1.0, "µJ": 1.0, "mJ": 1e3},
}
# What a number is a share of: where formats are searched for after training, and where they are learned.
FLOAT_TO_OWN = "float to the scheme's own formats"
FIRST_TO_LEAST = "all in the first format to the least"
_AMOUNT = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ]+)\s*")


def amount(name: str, text: str, *, where: str = "quantize.mixed", share: str = FLOAT_TO_OWN) -> float:
    """`3.2 ms` in milliseconds, `1.5 MB` in megabytes, `40 µJ` in microjoules.

    Args:
        name: of the cost.
        text: the amount.
        where: the section, for messages.
        share: what a number would be a share of, likewise.

    Raises:
        InputError: it is no number with such a unit.
    """
    match, units = _AMOUNT.fullmatch(text), _UNITS[name]
    if match is None or match[2] not in units:
        raise InputError(
            f"{where}.budget.{name} = {text!r}; expected a share of the way from {share} (0 to 1), or an amount in "
            f"{', '.join(units)}"
        )
    return float(match[1]) * units[match[2]]
