"""Which rows are measured again: those whose latency is unlike what all other rows together say of such a kernel.

Either something disturbed all of its placements, or the runtime surprises there; a second, longer look tells. It
replaces the first whatever it shows, so that nothing is drawn towards what was expected, and there is no third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.table.row import KernelRow
from bitwright.hw_constraints.table.sampling import Fit, group_of

_FOLDS = 5
_FEWEST = 30  # rows, below which nobody knows what to expect
_FEWEST_ALIKE = 6  # of a kind: the first of its kind is always unlike the others
_UNLIKE = 3.0  # standard deviations
_LEAST_DEVIATION = 0.15  # of log time: what kernels that look alike differ by
_LOST = 2e-3  # in units of the reference kernel's time: below, a kernel is lost in any network
_NORMAL_95 = 1.96


def suspects(rows: Sequence[KernelRow], fit: Fit, *, most: int) -> list[Kernel]:
    """Kernels to look at again, the most unlikely first.

    Args:
        rows: measured ones.
        fit: makes a belief of rows; each row is judged by a belief that has not seen it.
        most: placements of a first look at most; who has more had a second one.
    """
    if len(rows) < _FEWEST:
        return []
    alike: dict[tuple[str, ...], int] = {}
    for row in rows:
        alike[group_of(row.kernel)] = alike.get(group_of(row.kernel), 0) + 1
    scores = {}
    for fold in range(_FOLDS):
        inside = rows[fold::_FOLDS]
        belief = fit([row for index, row in enumerate(rows) if index % _FOLDS != fold])
        logs, deviations = belief([row.kernel for row in inside])
        for row, expected, deviation in zip(inside, logs, deviations, strict=True):
            seen_once = row.placements <= most and row.ratio > _LOST
            if seen_once and alike[group_of(row.kernel)] >= _FEWEST_ALIKE:
                own = row.half_width / _NORMAL_95 / row.ratio if math.isfinite(row.half_width) else 1.0
                scale = math.hypot(max(float(deviation), _LEAST_DEVIATION), own)
                scores[row.key] = abs(math.log(row.ratio) - float(expected)) / scale
    unlikely = {row.key: row.kernel for row in rows if scores.get(row.key, 0.0) > _UNLIKE}
    return [unlikely[key] for key in sorted(unlikely, key=lambda key: -scores[key])]
