"""Times candidates against each other: all in one process, one sample of each per round, in random order.

What disturbs a machine lasts longer than a round, so it hits every candidate alike and cancels in their ratio.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from bitwright.hw_constraints.machine import Machine, load_average, this_machine
from bitwright.hw_constraints.measure.conditions import Clock, Instant, pinned
from bitwright.hw_constraints.measure.statistics import Ratio, location_interval, median_and_spread, paired_ratio
from bitwright.quant.errors import InputError

_SAMPLE_SECONDS = 5e-4  # shorter calls are repeated: reading the clocks takes a few microseconds
_MOST_REPEATS = 8  # of a disturbed sample within its round: after a preemption a fresh time slice has begun
_STABLE = 0.02  # the warm-up ends when two windows' medians differ by less
_WINDOW_CALLS = 5
_MOST_WINDOWS = 20
_CHECK_EVERY = 0.1  # of the rounds so far: intervals take longer to compute the more rounds there are
_STOLEN_SHARE = 0.05  # of a sample's wall time that another process was served
_MOST_DISTURBED = 0.5  # of all rounds; beyond, calm rounds are no longer the rule and dropping them is no cure
_WALL, _PROCESSOR = "wall time", "processor time"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measured latency.

    Attributes:
        median_us: median over rounds, microseconds a call.
        spread_us: interquartile range, microseconds.
        n: rounds.
        device: the machine.
        versions: of what ran.
        threads: in use.
        basis: `wall time` or `processor time`; see `Measurement`.
    """

    median_us: float
    spread_us: float
    n: int
    device: Machine
    versions: Mapping[str, str]
    threads: int
    basis: str

    def __str__(self) -> str:
        facts = f"{self.n} rounds, {self.threads} threads, {self.basis}"
        return f"{self.median_us:.0f} µs, interquartile range {self.spread_us:.0f} ({facts})"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Samples of several candidates, paired by round.

    Attributes:
        times_us: microseconds a call, by candidate, one for each round that counts.
        rounds: all rounds.
        disturbed_samples: samples that were taken again because another process was served in between.
        disturbed_rounds: rounds in which even repeating did not give an undisturbed sample of each.
        dropped_disturbed: whether these were left out; they are kept when they are the majority.
        basis: `wall time`; or `processor time` when one thread was disturbed in most rounds: what it would take if it
            had the processor to itself, but for caches that others have emptied.
        converged: whether every interval got as narrow as asked before the time was up.
        load_before: the machine's load average at the start.
        load_after: the machine's load average at the end.
        device: the machine.
        threads: in use.
        versions: of what ran, by candidate.
    """

    times_us: Mapping[str, tuple[float, ...]]
    rounds: int
    disturbed_samples: int
    disturbed_rounds: int
    dropped_disturbed: bool
    basis: str
    converged: bool
    load_before: float
    load_after: float
    device: Machine
    threads: int
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def latency(self, name: str) -> Latency:
        """One candidate's latency."""
        center, spread = median_and_spread(self.times_us[name])
        return Latency(
            median_us=center,
            spread_us=spread,
            n=len(self.times_us[name]),
            device=self.device,
            versions=self.versions.get(name, {}),
            threads=self.threads,
            basis=self.basis,
        )

    def ratio(self, name: str, reference: str) -> Ratio:
        """One candidate's time in relation to another's, paired by round."""
        return paired_ratio(self.times_us[name], self.times_us[reference])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record; `measurement_from_json` reads them back."""
        return {
            "origin": "measured",
            "times_us": {name: list(times) for name, times in self.times_us.items()},
            "rounds": self.rounds,
            "disturbed_samples": self.disturbed_samples,
            "disturbed_rounds": self.disturbed_rounds,
            "dropped_disturbed": self.dropped_disturbed,
            "basis": self.basis,
            "converged": self.converged,
            "load_before": self.load_before,
            "load_after": self.load_after,
            "device": self.device.to_json(),
            "threads": self.threads,
            "versions": {name: dict(versions) for name, versions in self.versions.items()},
        }


def measurement_from_json(record: Mapping[str, Any]) -> Measurement:
    """Reads what `Measurement.to_json` wrote."""
    fields = {key: value for key, value in record.items() if key not in ("origin", "times_us", "device")}
    device = {**record["device"], "isa": frozenset(record["device"]["isa"])}
    times = {name: tuple(values) for name, values in record["times_us"].items()}
    return Measurement(times_us=times, device=Machine(**device), **fields)


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    min_rounds: int = 20,
    max_seconds: float = 30.0,
    target_half_width: float = 0.01,
    threads: int = 1,
    seed: int = 0,
    versions: Mapping[str, Mapping[str, str]] | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Times candidates until their ratios to the first one are known well enough, or the time is up.

    Args:
        candidates: what to call, by name.
        min_rounds: rounds without disturbance to wait for.
        max_seconds: when to stop all the same.
        target_half_width: of the 95 % intervals, in relation to the value.
        threads: processors to stay on; the candidates have to be set up for as many.
        seed: of the order within the rounds.
        versions: of what runs, by candidate, for the record.
        clock: another one for tests.

    Raises:
        InputError: there is no candidate, or there are fewer processors than threads.
    """
    if not candidates:
        raise InputError("nothing to measure: give at least one candidate")
    clock = clock or Clock()
    load_before = load_average()
    with pinned(threads):
        stop_at = clock.now().wall_s + max_seconds
        patience = max_seconds / 4 / len(candidates)
        calls = {name: _warm_up(call, clock, patience) for name, call in candidates.items()}
        rounds = _Rounds(candidates, calls, clock, threads, random.Random(seed))
        converged = False
        while clock.now().wall_s < stop_at and not converged:
            rounds.run(max(1, int(_CHECK_EVERY * rounds.count)))
            converged = rounds.usable() >= min_rounds and _widest(rounds.times()) <= target_half_width
    return Measurement(
        times_us=rounds.times(),
        rounds=rounds.count,
        disturbed_samples=rounds.disturbed_samples,
        disturbed_rounds=rounds.count - len(rounds.calm),
        dropped_disturbed=not rounds.mostly_disturbed,
        basis=rounds.basis,
        converged=converged,
        load_before=load_before,
        load_after=load_average(),
        device=this_machine(),
        threads=threads,
        versions=dict(versions or {}),
    )


class _Rounds:
    """The rounds so far; `calm` holds the numbers of those that nothing disturbed."""

    def __init__(
        self,
        candidates: Mapping[str, Callable[[], object]],
        calls: Mapping[str, int],
        clock: Clock,
        threads: int,
        order: random.Random,
    ) -> None:
        self._candidates, self._calls, self._clock, self._threads, self._order = (
            candidates,
            calls,
            clock,
            threads,
            order,
        )
        self._times: dict[str, dict[str, list[float]]] = {
            basis: {name: [] for name in candidates} for basis in (_WALL, _PROCESSOR)
        }
        self.calm: list[int] = []
        self.count = 0
        self.disturbed_samples = 0

    @property
    def mostly_disturbed(self) -> bool:
        return len(self.calm) < (1 - _MOST_DISTURBED) * self.count

    @property
    def basis(self) -> str:
        # Several threads wait for each other, so their processor time is no latency.
        return _PROCESSOR if self.mostly_disturbed and self._threads == 1 else _WALL

    def usable(self) -> int:
        """Rounds that a conclusion may rest on."""
        if self.mostly_disturbed:
            return self.count if self.basis == _PROCESSOR else 0
        return len(self.calm)

    def run(self, rounds: int) -> None:
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


def _widest(times: Mapping[str, tuple[float, ...]]) -> float:
    """The widest interval's half-width: of the ratios to the first candidate, of the time itself for a lone one."""
    reference, *others = times.values()
    if not others:
        _, low, high = location_interval(np.log(np.asarray(reference, np.float64)))
        return math.expm1((high - low) / 2)
    return max(paired_ratio(other, reference).half_width for other in others)
