"""Interleaving on a simulated clock: the truth is known, and nothing depends on this machine."""

import json
import os
import random
from collections.abc import Callable

import pytest

from bitwright.hw_constraints.machine import usable_cpus
from bitwright.hw_constraints.measure import interleave, measurement_from_json
from bitwright.hw_constraints.measure.conditions import Clock, Instant, pinned, quietest_cpus
from bitwright.hw_constraints.measure.rounds import was_disturbed
from bitwright.quant.errors import InputError


class SimulatedClock(Clock):
    """Time passes when a candidate is called; with some probability another process is served meanwhile."""

    def __init__(self, *, stolen: float = 0.0, drift: float = 0.01, seed: int = 0) -> None:
        self.wall = self.cpu = 0.0
        self.calls: list[str] = []
        self.stolen, self.drift, self.random = stolen, drift, random.Random(seed)
        self.slowness, self.preempted = 1.0, False

    def now(self) -> Instant:
        return Instant(wall_s=self.wall, cpu_s=self.cpu, preemptions=len(self.calls) if self.preempted else 0)

    def candidate(self, name: str, seconds: float, noise: float = 0.02) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.slowness *= self.random.lognormvariate(0, self.drift)
            took = seconds * self.slowness * self.random.lognormvariate(0, noise)
            self.cpu += took
            self.wall += took + (0.004 if self.random.random() < self.stolen else 0.0)

        return call


def measured(clock: SimulatedClock, times: dict[str, float], **options):
    candidates = {name: clock.candidate(name, seconds) for name, seconds in times.items()}
    return interleave(candidates, clock=clock, **options)


def test_the_ratio_is_found_under_drift():
    result = measured(SimulatedClock(), {"float": 0.010, "int8": 0.006}, max_seconds=60)
    ratio = result.ratio("int8", "float")
    assert ratio.value == pytest.approx(0.6, rel=0.02)
    assert ratio.low < 0.6 < ratio.high
    assert ratio.verdict == "faster"
    assert result.converged
    assert ratio.half_width <= 0.01


def test_it_stops_when_the_time_is_up():
    clock = SimulatedClock(drift=0)
    result = measured(clock, {"a": 0.01, "b": 0.01}, max_seconds=3, target_half_width=1e-6)
    assert not result.converged
    assert clock.wall == pytest.approx(3, rel=0.3)


def test_each_round_holds_each_candidate_once_in_changing_order():
    clock = SimulatedClock()
    result = measured(clock, {"a": 0.01, "b": 0.01, "c": 0.01}, max_seconds=20)
    rounds = [tuple(clock.calls[-3 * k : len(clock.calls) - 3 * (k - 1)]) for k in range(1, result.rounds + 1)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) == 6
    assert {len(times) for times in result.times_us.values()} == {result.rounds}


def test_disturbed_samples_are_taken_again_and_counted():
    result = measured(SimulatedClock(stolen=0.3, drift=0), {"a": 0.010, "b": 0.008}, max_seconds=60)
    assert result.disturbed_samples > 0.2 * 2 * result.rounds
    assert result.disturbed_rounds <= 0.01 * result.rounds
    assert result.dropped_disturbed
    assert max(result.times_us["a"]) < 1.2 * 0.010 * 1e6
    assert result.ratio("b", "a").value == pytest.approx(0.8, rel=0.03)


def test_when_nothing_is_calm_one_thread_is_judged_by_its_processor_time():
    result = measured(SimulatedClock(stolen=1.0), {"a": 0.010, "b": 0.008}, max_seconds=60)
    assert result.disturbed_rounds == result.rounds == len(result.times_us["a"])
    assert (result.basis, result.dropped_disturbed, result.converged) == ("processor time", False, True)
    # The wall times' ratio is 12 / 14.
    assert result.ratio("b", "a").value == pytest.approx(0.8, rel=0.03)


def test_calm_rounds_are_judged_by_the_wall():
    result = measured(SimulatedClock(), {"a": 0.010, "b": 0.008}, max_seconds=60)
    assert (result.basis, result.dropped_disturbed) == ("wall time", True)


@pytest.mark.skipif(len(usable_cpus()) < 2, reason="needs two processors")
def test_several_threads_under_disturbance_never_converge():
    clock = SimulatedClock()
    clock.preempted = True
    result = measured(clock, {"a": 0.010, "b": 0.008}, threads=2, max_seconds=3)
    assert (result.basis, result.dropped_disturbed, result.converged) == ("wall time", False, False)


def test_short_calls_are_repeated_within_a_sample():
    clock = SimulatedClock(drift=0)
    result = measured(clock, {"a": 1e-5}, max_seconds=2)
    assert len(clock.calls) > 40 * result.rounds
    assert result.latency("a").median_us == pytest.approx(10, rel=0.02)


def test_untimed_calls_give_each_candidate_its_own_caches():
    clock = SimulatedClock(drift=0)
    last = []

    def after(name: str, seconds: float, cold: float) -> Callable[[], None]:
        """A candidate that takes longer behind another one."""
        warm, behind_another = clock.candidate(name, seconds, 0.0), clock.candidate(name, cold, 0.0)

        def call() -> None:
            (warm if last[-1:] == [name] else behind_another)()
            last.append(name)

        return call

    def ratio(untimed_calls: int) -> float:
        candidates = {"a": after("a", 0.010, 0.010), "b": after("b", 0.010, 0.014)}
        found = interleave(candidates, clock=clock, max_seconds=20, untimed_calls=untimed_calls)
        return found.ratio("b", "a").value

    assert ratio(0) == pytest.approx(1.4, rel=0.01)
    assert ratio(1) == pytest.approx(1.0, rel=0.01)


def test_the_warm_up_waits_until_calls_take_equally_long():
    clock = SimulatedClock()
    slow = iter([0.1] * 7)

    def call() -> None:
        took = next(slow, 0.01)
        clock.wall += took
        clock.cpu += took

    result = interleave({"a": call}, clock=clock, max_seconds=30)
    assert max(result.times_us["a"]) == pytest.approx(1e4)


def test_latency_carries_where_it_comes_from():
    result = measured(SimulatedClock(), {"a": 0.01, "b": 0.02}, max_seconds=9, versions={"a": {"onnxruntime": "1.0"}})
    latency = result.latency("a")
    assert (latency.versions, latency.threads, latency.n) == ({"onnxruntime": "1.0"}, 1, len(result.times_us["a"]))
    assert latency.device == result.device
    assert "rounds, 1 thread, wall time)" in str(latency)
    assert latency.spread_us > 0
    assert result.latency("b").versions == {}
    assert measurement_from_json(json.loads(json.dumps(result.to_json()))) == result


def test_one_thread_is_disturbed_when_it_does_not_get_its_time():
    def instant(wall: float, cpu: float, preemptions: int = 0) -> Instant:
        return Instant(wall_s=wall, cpu_s=cpu, preemptions=preemptions)

    start = instant(0, 0)
    assert was_disturbed(start, instant(0.010, 0.009), 1)
    assert not was_disturbed(start, instant(0.010, 0.0099), 1)
    assert not was_disturbed(start, instant(0.010, 0.009), 2)
    assert was_disturbed(start, instant(0.010, 0.020, preemptions=1), 2)


def test_the_real_clock_tells_computing_from_waiting():
    clock = Clock()
    start = clock.now()
    while clock.now().cpu_s - start.cpu_s < 0.02:
        pass
    assert clock.now().wall_s - start.wall_s >= 0.019


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_pinning_holds_and_is_undone():
    before = os.sched_getaffinity(0)
    with pinned(1) as cpus:
        assert os.sched_getaffinity(0) == set(cpus)
        assert len(cpus) == 1
    assert os.sched_getaffinity(0) == before


def test_misuse():
    with pytest.raises(InputError, match="nothing to measure"):
        interleave({})
    have = len(usable_cpus())
    with pytest.raises(InputError, match=f"threads = {have + 1}; this process may use {have} processors"):
        quietest_cpus(have + 1)
