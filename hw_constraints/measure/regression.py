"""Whether one file is slower than another by more than a margin: decided by an interval, not by a threshold on noise.

Both files are timed in turns in one process, and that in several fresh processes, since figures that repeat within one
process to 1 % differ by several from one process to the next: where memory happens to lie decides how well caches
serve it. Each process gives one paired ratio; the interval is over processes (Wilcoxon's signed-rank test on their
logarithms), so that what is called proven repeats in a new process.

    slower      the whole interval of new / old lies above 1 + margin
    not slower  the whole interval lies below 1 + margin; faster, when it lies below 1
    cannot tell the interval holds 1 + margin
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends import Arrays
from bitwright.hw_constraints.measure.files import measure_in_subprocess
from bitwright.hw_constraints.measure.interleaving import Measurement
from bitwright.hw_constraints.measure.location import location_interval

_FEWEST_PROCESSES = 6  # the fewest that a 95 % interval can be had of
_MOST_PROCESSES = 40
_SHARE = 1 / 8  # of the time for one process
_LONGEST_SECONDS = 4.0  # within a process: beyond, another process tells more
_HALF_WIDTH = 0.005  # of the ratio within a process, without a margin to measure it by
_NARROW = 0.5  # of the margin: the half-width at which measuring stops


class Change(StrEnum):
    """What an interval proves."""

    SLOWER = "slower"
    NOT_SLOWER = "not slower"
    FASTER = "faster"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Regression:
    """The outcome.

    Attributes:
        ratio: new / old, the centre over processes.
        low: lower end of its 95 % interval.
        high: upper end.
        margin: by which it may be slower, as a share.
        processes: the ratio within each process.
        old_us: median of the old file's latencies over processes, microseconds.
        new_us: of the new file's.
        disturbed_rounds: in all processes.
    """

    ratio: float
    low: float
    high: float
    margin: float
    processes: tuple[float, ...]
    old_us: float
    new_us: float
    disturbed_rounds: int

    @property
    def change(self) -> Change:
        """What the interval proves."""
        if self.low > 1 + self.margin:
            return Change.SLOWER
        if self.high < 1:
            return Change.FASTER
        return Change.NOT_SLOWER if self.high <= 1 + self.margin else Change.CANNOT_TELL

    def __str__(self) -> str:
        interval = f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"
        allowed = f"{100 * self.margin:g} % slower is allowed"
        if self.change is Change.CANNOT_TELL:
            return (
                f"{interval}: cannot tell, the interval holds {1 + self.margin:.3f} ({allowed}); give it more seconds"
            )
        return f"{interval}: {self.change}, by {len(self.processes)} processes ({allowed})"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "processes": list(self.processes), "change": str(self.change), "origin": "measured"}


Measure = Callable[..., Measurement]


def compare_files(
    old: Path,
    new: Path,
    runtime: str,
    *,
    margin: float,
    threads: int = 1,
    seconds: float = 60.0,
    inputs: Arrays | None = None,
    measure: Measure | None = None,
    progress: Callable[[int], None] | None = None,
) -> Regression:
    """Times two files against each other in several processes.

    Measuring stops when the interval is narrow against the margin, wherever it lies, or when the time is up; stopping
    as soon as it excludes the margin would find regressions that are none.

    Args:
        old: the reference.
        new: what may have become slower.
        runtime: a backend's name.
        margin: the share by which it may be slower; 0.02 is 2 %.
        threads: of the runtime.
        seconds: about so long, six processes at least.
        inputs: one batch for both; standard normal numbers when not given.
        measure: another way to measure than `measure_in_subprocess`.
        progress: called with the number of processes done.

    Raises:
        InputError: a file or the runtime cannot be used.
    """
    stop_at = time.monotonic() + seconds
    logs: list[float] = []
    measurements: list[Measurement] = []
    low = high = 0.0
    while len(logs) < _MOST_PROCESSES and (len(logs) < _FEWEST_PROCESSES or time.monotonic() < stop_at):
        found = (measure or measure_in_subprocess)(
            _in_turns(old, new, runtime, len(logs)),
            threads=threads,
            inputs=None if inputs is None else {"old": inputs, "new": inputs},
            max_seconds=min(_LONGEST_SECONDS, seconds * _SHARE),
            target_half_width=margin / 4 if margin else _HALF_WIDTH,
            seed=len(logs),
        )
        measurements.append(found)
        logs.append(math.log(found.ratio("new", "old").value))
        if progress is not None:
            progress(len(logs))
        _, low, high = location_interval(logs)
        if len(logs) >= _FEWEST_PROCESSES and (high - low) / 2 <= _NARROW * margin:
            break
    centre, low, high = location_interval(logs)
    return Regression(
        ratio=math.exp(centre),
        low=math.exp(low),
        high=math.exp(high),
        margin=margin,
        processes=tuple(map(math.exp, logs)),
        old_us=_middle(measurements, "old"),
        new_us=_middle(measurements, "new"),
        disturbed_rounds=sum(each.disturbed_rounds for each in measurements),
    )


def _in_turns(old: Path, new: Path, runtime: str, process: int) -> dict[str, tuple[Path, str]]:
    """Both files; which of them is loaded first may decide where its memory lies, so they take turns."""
    files = {"old": (old, runtime), "new": (new, runtime)}
    return files if process % 2 == 0 else {name: files[name] for name in ("new", "old")}


def _middle(measurements: list[Measurement], name: str) -> float:
    from statistics import median

    return median(each.latency(name).median_us for each in measurements)
