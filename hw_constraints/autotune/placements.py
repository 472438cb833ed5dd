"""Files timed against each other in several fresh processes.

Where its tensors lie in memory changes a network's time by per cents from process to process, and no number of rounds
in one process averages that out. So the interval of a ratio is one over processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from bitwright.hw_constraints.backends import Arrays
from bitwright.hw_constraints.measure import Ratio, measure_in_subprocess, paired_ratio

_LEAST_ROUNDS = 12  # twice what an interval needs at least
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Paired rounds of each process.

    Attributes:
        times_us: by process, then by file: microseconds a call, one for each round.
    """

    times_us: tuple[Mapping[str, Sequence[float]], ...]

    def ratio(self, name: str, reference: str) -> Ratio:
        """One file's time in relation to another's.

        With several processes: the geometric mean of their paired ratios, and Student's 95 % interval of their
        logarithms. With one: that process's paired ratio.
        """
        each = [paired_ratio(times[name], times[reference]) for times in self.times_us]
        if len(each) == 1 or name == reference:
            return each[0]
        from scipy.stats import t

        logs = [math.log(ratio.value) for ratio in each]
        center = fmean(logs)
        reach = float(t.ppf((1 + _CONFIDENCE) / 2, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
        rounds = sum(ratio.rounds for ratio in each)
        return Ratio(value=math.exp(center), low=math.exp(center - reach), high=math.exp(center + reach), rounds=rounds)

    def median_us(self, name: str) -> float:
        """The median over processes of a file's median."""
        return median(median(times[name]) for times in self.times_us)

    def to_json(self) -> list[dict[str, list[float]]]:
        """Plain values for the record."""
        return [{name: [round(time, 2) for time in times] for name, times in each.items()} for each in self.times_us]

    @classmethod
    def from_json(cls, record: Sequence[Mapping[str, Any]]) -> Placements:
        """Reads what `to_json` wrote."""
        return cls(times_us=tuple(record))


def measure_placements(
    files: Mapping[str, Path],
    *,
    runtime: str,
    inputs: Mapping[str, Arrays] | None = None,
    threads: int,
    processes: int,
    half_width: float,
    seconds: float,
) -> Placements:
    """Times files, interleaved, in fresh processes one after the other; the first file is the reference.

    Args:
        files: by name.
        runtime: a backend's name.
        inputs: by the file's name; standard normal numbers when not given.
        threads: of the runtime.
        processes: how many.
        half_width: of the intervals within a process, wanted.
        seconds: for each process at most, loading not counted.

    Raises:
        InputError: the runtime does not take a file.
    """
    measured = [
        measure_in_subprocess(
            {name: (path, runtime) for name, path in files.items()},
            threads=threads,
            inputs=inputs,
            min_rounds=_LEAST_ROUNDS,
            max_seconds=seconds,
            target_half_width=half_width,
            seed=process,
            untimed_calls=1,
        )
        for process in range(processes)
    ]
    return Placements(times_us=tuple(each.times_us for each in measured))
