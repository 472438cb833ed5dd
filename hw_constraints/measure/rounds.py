"""Rounds: one sample of each candidate in random order, taken again where another process was served in between.

Standard library of Python 3.8 alone: the runner on a device measures with this file.
"""

from __future__ import annotations

import math
import random
from statistics import median
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.machine import load_average
from bitwright.hw_constraints.measure.conditions import Clock, Instant, pinned
from bitwright.hw_constraints.measure.location import widest_half_width

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SAMPLE_SECONDS = 5e-4  # shorter calls are repeated: reading the clocks takes a few microseconds
_MOST_REPEATS = 8  # of a disturbed sample within its round: after a preemption a fresh time slice has begun
_STABLE = 0.02  # the warm-up ends when two windows' medians differ by less
_WINDOW_CALLS = 5
_MOST_WINDOWS = 20
_CHECK_EVERY = 0.1  # of the rounds so far: intervals take longer to compute the more rounds there are
_STOLEN_SHARE = 0.05  # of a sample's wall time that another process was served
_MOST_DISTURBED = 0.5  # of all rounds; beyond, calm rounds are no longer the rule and dropping them is no cure
_WALL, _PROCESSOR = "wall time", "processor time"


def timed_rounds(
    candidates: Mapping[str, Callable[[], object]],
    *,
    min_rounds: int,
    max_seconds: float,
    target_half_width: float,
    threads: int,
    seed: int,
    untimed_calls: int = 0,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Times candidates until their ratios to the first one are known well enough; `interleave` says what is what.

    Returns:
        Plain values: what a `Measurement` holds besides the machine and the versions.

    Raises:
        InputError: there are fewer processors than threads.
    """
    clock = clock or Clock()
    load_before = load_average()
    with pinned(threads):
        stop_at = clock.now().wall_s + max_seconds
        patience = max_seconds / 4 / len(candidates)
        calls = {name: _warm_up(call, clock, patience) for name, call in candidates.items()}
        rounds = Rounds(candidates, calls, clock, threads, random.Random(seed), untimed_calls)
        converged = False
        while clock.now().wall_s < stop_at and not converged:
            rounds.run(max(1, int(_CHECK_EVERY * rounds.count)))
            converged = rounds.usable() >= min_rounds and widest_half_width(rounds.times()) <= target_half_width
    return {
        "times_us": rounds.times(),
        "rounds": rounds.count,
        "disturbed_samples": rounds.disturbed_samples,
        "disturbed_rounds": rounds.count - len(rounds.calm),
        "dropped_disturbed": not rounds.mostly_disturbed,
        "basis": rounds.basis,
        "converged": converged,
        "load_before": load_before,
        "load_after": load_average(),
        "threads": threads,
    }


class Rounds:
    """The rounds so far; `calm` holds the numbers of those that nothing disturbed."""

    def __init__(
        self,
        candidates: Mapping[str, Callable[[], object]],
        calls: Mapping[str, int],
        clock: Clock,
        threads: int,
        order: random.Random,
        untimed_calls: int = 0,
    ) -> None:
        self._candidates, self._calls, self._clock, self._threads, self._order = (
            candidates,
            calls,
            clock,
            threads,
            order,
        )
        self._untimed_calls = untimed_calls
        self._times: dict[str, dict[str, list[float]]] = {
            basis: {name: [] for name in candidates} for basis in (_WALL, _PROCESSOR)
        }
        self.calm: list[int] = []
        self.count = 0
        self.disturbed_samples = 0

    @property
    def mostly_disturbed(self) -> bool:
        """Whether calm rounds are the exception."""
        return len(self.calm) < (1 - _MOST_DISTURBED) * self.count

    @property
    def basis(self) -> str:
        """Which of the clocks counts; see `Measurement.basis`."""
        # Several threads wait for each other, so their processor time is no latency.
        return _PROCESSOR if self.mostly_disturbed and self._threads == 1 else _WALL

    def usable(self) -> int:
        """Rounds that a conclusion may rest on."""
        if self.mostly_disturbed:
            return self.count if self.basis == _PROCESSOR else 0
        return len(self.calm)

    def run(self, rounds: int) -> None:
        """Takes so many more."""
        for _ in range(rounds):
            names = list(self._candidates)
            self._order.shuffle(names)
            calm = [self._calm_sample(name) for name in names]
            if all(calm):
                self.calm.append(self.count)
            self.count += 1

    def _calm_sample(self, name: str) -> bool:
        """Takes a sample, again while it is disturbed; whether the one that was kept is not."""
        start, end = self._sample(name)
        # Where most rounds are disturbed a sample is longer than the slices of time that are to be had.
        repeats = 0 if self.mostly_disturbed else _MOST_REPEATS
        for _ in range(repeats):
            if not was_disturbed(start, end, self._threads):
                break
            self.disturbed_samples += 1
            start, end = self._sample(name)
        calls = self._calls[name]
        self._times[_WALL][name].append((end.wall_s - start.wall_s) / calls * 1e6)
        self._times[_PROCESSOR][name].append((end.cpu_s - start.cpu_s) / calls * 1e6)
        return not was_disturbed(start, end, self._threads)

    def _sample(self, name: str) -> tuple[Instant, Instant]:
        call, repeats = self._candidates[name], self._calls[name]
        for _ in range(self._untimed_calls):
            call()
        start = self._clock.now()
        for _ in range(repeats):
            call()
        return start, self._clock.now()

    def times(self) -> dict[str, tuple[float, ...]]:
        """Microseconds a call of the rounds that count."""
        kept = range(self.count) if self.mostly_disturbed else self.calm
        return {name: tuple(times[number] for number in kept) for name, times in self._times[self.basis].items()}


def was_disturbed(start: Instant, end: Instant, threads: int) -> bool:
    """Whether another process was served in between.

    One thread that computes uses as much processor time as wall time. Several may wait for each other, so there the
    system's count of preemptions decides.
    """
    wall_s, cpu_s = end.wall_s - start.wall_s, end.cpu_s - start.cpu_s
    if threads == 1:
        return wall_s - cpu_s > _STOLEN_SHARE * wall_s
    return end.preemptions > start.preemptions


def _warm_up(call: Callable[[], object], clock: Clock, patience_s: float) -> int:
    """Calls until windows of calls take equally long; returns how many calls make a sample long enough."""
    started, before = clock.now().wall_s, math.inf
    for _ in range(_MOST_WINDOWS):
        durations = []
        for _ in range(_WINDOW_CALLS):
            start = clock.now().wall_s
            call()
            durations.append(clock.now().wall_s - start)
        now = median(durations)
        if abs(now - before) <= _STABLE * now or clock.now().wall_s - started > patience_s:
            break
        before = now
    return max(1, math.ceil(_SAMPLE_SECONDS / now)) if now > 0 else 1
