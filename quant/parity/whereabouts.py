"""Which elements of a tensor are off, in words: one channel alone points at its scale, the border at padding."""

from __future__ import annotations

import numpy as np

from bitwright.quant.parity.link import Array

_AXES = {4: ("samples", "channels", "rows", "columns"), 3: ("samples", "steps", "features"), 2: ("samples", "features")}


def where(off: Array) -> str:
    """Which indices of each axis hold all that is off: `channel 3 of 64, rows 0 to 1 of 56`; empty for everywhere.

    Args:
        off: bool, of a tensor's shape.
    """
    names = _AXES.get(off.ndim, tuple(f"axis {place}" for place in range(off.ndim)))
    said = []
    for axis, (name, size) in enumerate(zip(names, off.shape, strict=True)):
        hit = np.flatnonzero(off.any(tuple(other for other in range(off.ndim) if other != axis)))
        if len(hit) and len(hit) < size:
            first, last = int(hit[0]), int(hit[-1])
            dense = len(hit) == last - first + 1
            span = f"{first}" if first == last else f"{first} to {last}"
            said.append(f"{name} {span} of {size}" if dense else f"{len(hit)} of {size} {name}")
    return ", ".join(said)
