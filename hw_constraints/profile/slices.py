"""What the measuring process answers, as times of kernels and of the run that add up.

In each slice i the run without the profiler takes w_i and kernel k under the profiler t_ki, of which c is the
profiler's own (`profiler_cost`). The machine may be slower in one slice than in the next, so what is kept is the ratio:
t_k = W * middle_i(max(0, t_ki - c) / w_i), W = median_i w_i, where middle is the mean of the middle half.
What is left, W - sum_k t_k, is outside kernels. Where the sum is larger than W even so (the profiler takes longer for
kernels with many operands), c is what makes it W, the same for each kernel, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.measure.location import location_interval

_EXACT = 1e-6  # microseconds: what converting from seconds leaves
_TRIMMED = 0.25  # of the slices, at each end
_HALVINGS = 60  # of the bracket: beyond a double's precision


class Slices:
    """The answer of `worker.layers`.

    Attributes:
        wall_us: W, one undisturbed run in microseconds.
        wall: its 95 % interval; None below six slices.
        kernels: with their times t_k, in order.
        executed: the graph that ran.
        profiler_us: c.
        is_share_known: whether c was measured by itself, rather than what makes kernels add up to the run.
        overhead_us: outside kernels.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        walls = np.asarray(answer["wall_us"], np.float64)
        self.count = len(walls)
        self.settings: Mapping[str, str] = answer["settings"]
        self.copy_gb_s: float = answer["copy_gb_s"]
        self.executed = tuple(
            ExecutedNode(
                name=node["name"],
                op=node["op"],
                inputs=tuple(node["inputs"]),
                outputs=tuple(node["outputs"]),
                originals=tuple(node["originals"]),
            )
            for node in answer["executed"]
        )
        self.wall_us = float(np.median(walls))
        measured = {name: np.asarray(times, np.float64) for name, times in answer["kernels"].items()}
        self.profiler_us = max(answer["profiler_us"], _excess_us(list(measured.values()), walls))
        self._samples = {
            name: np.maximum(0.0, times - self.profiler_us) / walls * self.wall_us for name, times in measured.items()
        }
        self._counts_whole = all(_are_whole(2 * each) for each in measured.values())  # medians
        times = {name: _middle(samples) for name, samples in self._samples.items()}
        self.is_share_known = self.profiler_us == answer["profiler_us"]
        self.overhead_us = max(0.0, self.wall_us - sum(times.values())) if self.is_share_known else 0.0
        self.wall = interval(walls, self.wall_us)
        self.kernels = tuple(KernelTime(name=name, time_us=us, **answer["facts"][name]) for name, us in times.items())

    def interval(self, kernels: Iterable[str], us: float) -> tuple[float | None, float | None]:
        """The 95 % interval of several kernels' time together."""
        samples = [self._samples[name] for name in kernels]
        return interval(sum(samples), us) if samples else (None, None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the times."""
        notes = []
        if self.profiler_us:
            why = (
                "" if self.is_share_known else ", so that they add up to the run: the runtime's own share is not known"
            )
            notes.append(f"{self.profiler_us:.1f} µs that the profiler adds to each kernel are taken off{why}")
        if self._counts_whole:
            notes.append("the profiler counts whole microseconds: half of one is uncertain in each kernel")
        return tuple(notes)


def _excess_us(kernels: list[npt.NDArray[np.float64]], walls: npt.NDArray[np.float64]) -> float:
    """What to take off each kernel, none below nothing, so that all add up to the run; 0 when they do not exceed it."""
    shares = np.asarray([_middle(times / walls) for times in kernels])
    if shares.sum() <= 1.0:
        return 0.0
    wall_us = float(np.median(walls))
    low, high = 0.0, float(shares.max()) * wall_us
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        total = sum(_middle(np.maximum(0.0, times - middle) / walls) for times in kernels)
        low, high = (middle, high) if total > 1.0 else (low, middle)
    return high


def _are_whole(values: npt.NDArray[np.float64]) -> bool:
    return np.allclose(values, np.round(values), rtol=0, atol=_EXACT)


def _middle(samples: npt.NDArray[np.float64]) -> float:
    """The mean of the middle half: no disturbed slice moves it, and whole microseconds average out."""
    from scipy.stats import trim_mean

    return float(trim_mean(samples, _TRIMMED))


def interval(samples: Any, us: float) -> tuple[float | None, float | None]:
    """The 95 % interval of a time from one sample a slice, made to hold the reported value; None below six."""
    _, low, high = location_interval([float(each) for each in samples])
    if not (np.isfinite(low) and np.isfinite(high)):
        return None, None
    return min(low, us), max(high, us)
