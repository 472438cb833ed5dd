"""Times candidates against each other: all in one process, one sample of each per round, in random order.

What disturbs a machine lasts longer than a round, so it hits every candidate alike and cancels in their ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bitwright.hw_constraints.machine import Machine, this_machine
from bitwright.hw_constraints.measure.conditions import Clock
from bitwright.hw_constraints.measure.rounds import timed_rounds
from bitwright.hw_constraints.measure.statistics import Ratio, median_and_spread, paired_ratio
from bitwright.quant.errors import InputError


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
        facts = f"{self.n} rounds, {self.threads} thread{'s' * (self.threads > 1)}, {self.basis}"
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
    untimed_calls: int = 0,
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
        untimed_calls: before each sample, so that a candidate finds the caches as it leaves them itself, and not as the
            others do: many of them interleaved would all look slower than they are, and some by more than others.
        versions: of what runs, by candidate, for the record.
        clock: another one for tests.

    Raises:
        InputError: there is no candidate, or there are fewer processors than threads.
    """
    if not candidates:
        raise InputError("nothing to measure: give at least one candidate")
    record = timed_rounds(
        candidates,
        min_rounds=min_rounds,
        max_seconds=max_seconds,
        target_half_width=target_half_width,
        threads=threads,
        seed=seed,
        untimed_calls=untimed_calls,
        clock=clock,
    )
    return Measurement(**record, device=this_machine(), versions=dict(versions or {}))
