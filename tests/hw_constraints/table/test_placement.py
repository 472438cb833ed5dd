"""A placement's arithmetic, on a clock that tests wind: no runtime involved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitwright.hw_constraints.backends.base import TensorSpec
from bitwright.hw_constraints.measure.conditions import Clock, Instant
from bitwright.hw_constraints.table.placement import PROCESSOR, WALL, Effort, Loaded, Observation, Subject
from bitwright.quant.errors import InputError

REFERENCE = b"reference"


class Wound(Clock):
    """Moves only when a model runs."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.preemptions = 0

    def now(self) -> Instant:
        return Instant(wall_s=self.wall_s, cpu_s=self.cpu_s, preemptions=self.preemptions)


class Timed:
    """A session that takes so long by the wound clock; `steals(call)` is what others take meanwhile."""

    threads, settings, output_infos = 1, {}, ()
    input_infos = (TensorSpec(name="x", dtype="float32", shape=(1,)),)

    def __init__(self, clock: Wound, seconds: float, steals: Callable[[], float]) -> None:
        self._clock, self._seconds, self._steals = clock, seconds, steals

    def run(self, inputs: Any) -> dict[str, Any]:
        assert np.isfinite(inputs["x"]).all()
        self._clock.cpu_s += self._seconds
        self._clock.wall_s += self._seconds + self._steals()
        return {}


class Timer:
    """A backend whose models are how long they take, in seconds; a name that is no number is rejected."""

    name = "timer"

    def __init__(self, clock: Wound, steals: Callable[[], float] = lambda: 0.0) -> None:
        self._clock, self._steals = clock, steals
        self.loaded: list[bytes] = []

    def available(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def load(self, artifact: Any, *, threads: int = 1) -> Any:
        self.loaded.append(artifact)
        try:
            seconds = 0.001 if artifact == REFERENCE else float(artifact)
        except ValueError:
            raise InputError(f"no kernel for {artifact.decode()}") from None
        return Timed(self._clock, seconds, self._steals)


def load(backend: Timer, clock: Wound, *subjects: Subject, **options: Any) -> Loaded:
    defaults = {"threads": 1, "effort": Effort(), "seed": 0, "started": lambda number: None, "clock": clock}
    return Loaded(subjects, REFERENCE, backend, **{**defaults, **options})


def seen(*subjects: Subject, steals: Callable[[], float] = lambda: 0.0, **options: Any) -> list[Observation | str]:
    clock = Wound()
    return load(Timer(clock, steals), clock, *subjects, **options).run(seed=0)


def test_a_kernel_is_the_difference_of_two_models_by_branches_in_units_of_the_reference() -> None:
    (found,) = seen(Subject(model=b"0.007", without=b"0.001", branches=4))
    assert isinstance(found, Observation)
    assert found.ratio == pytest.approx((0.007 - 0.001) / 4 / 0.001)
    assert (found.rounds, found.disturbed, found.basis) == (
        4,
        0,
        WALL,
    )  # 18 ms a triple, calls that are left out included: four in 80 ms
    assert found.reference_us == pytest.approx(1000.0)


def test_a_network_is_its_whole_time() -> None:
    (found,) = seen(Subject(model=b"0.004"))
    assert isinstance(found, Observation) and found.ratio == pytest.approx(4.0)


def test_short_models_get_all_rounds_and_long_ones_two() -> None:
    short, long = seen(Subject(model=b"0.0001"), Subject(model=b"3"), effort=Effort(rounds=9, seconds=0.05))
    assert isinstance(short, Observation) and isinstance(long, Observation)
    assert (short.rounds, long.rounds) == (9, 2)
    assert (short.ratio, long.ratio) == (pytest.approx(0.1), pytest.approx(3000.0))


def test_what_the_runtime_rejects_is_told_and_does_not_stop_the_others() -> None:
    told: list[int] = []
    subjects = Subject(model=b"0.002"), Subject(model=b"Frobnicate"), Subject(model=b"0.001", without=b"Glance")
    found = seen(*subjects, started=told.append)
    assert isinstance(found[0], Observation)
    assert found[1:] == ["no kernel for Frobnicate", "no kernel for Glance"]
    assert told == [0, 1, 2]


def test_disturbed_triples_are_dropped_and_counted() -> None:
    calls = iter(range(10**6))

    def every_tenth() -> float:
        return 0.5 if next(calls) % 10 == 9 else 0.0

    (found,) = seen(Subject(model=b"0.002"), steals=every_tenth, effort=Effort(rounds=20, seconds=10.0))
    assert isinstance(found, Observation)
    assert found.ratio == pytest.approx(2.0)
    assert found.rounds == 20 and found.disturbed > 0 and found.basis == WALL


def test_processor_time_counts_where_one_thread_is_never_left_alone() -> None:
    (found,) = seen(Subject(model=b"0.002"), steals=lambda: 0.5)
    assert isinstance(found, Observation)
    assert (found.ratio, found.basis) == (pytest.approx(2.0), PROCESSOR)


def test_several_threads_that_are_never_left_alone_say_nothing() -> None:
    clock = Wound()

    def preempt() -> float:
        clock.preemptions += 1
        return 0.5

    (found,) = load(Timer(clock, preempt), clock, Subject(model=b"0.002"), threads=2).run(seed=0)
    assert isinstance(found, Observation) and math.isnan(found.ratio) and found.rounds == 0


def test_a_runtime_that_rejects_the_reference_is_refused() -> None:
    with pytest.raises(InputError, match="no kernel for nothing"):
        Loaded([], b"nothing", Timer(Wound()), threads=1, effort=Effort(), seed=0, started=lambda number: None)


def test_a_loaded_process_says_what_loading_took_and_what_a_run_will() -> None:
    clock = Wound()
    loaded = load(Timer(clock), clock, Subject(model=b"0.002"), effort=Effort(rounds=4, seconds=1.0))
    assert loaded.seconds == pytest.approx(4 * 2 * (0.001 + 0.002))  # the first call of a sample does not count
    assert loaded.load_seconds == pytest.approx(
        3 * (0.001 + 0.002)
    )  # two calls to warm up, one to see how long it takes


def test_the_reference_is_the_same_file_everywhere() -> None:
    import onnx

    from bitwright.hw_constraints.backends import get_backend
    from bitwright.hw_constraints.kernels import split
    from bitwright.hw_constraints.table.reference import REFERENCE as KERNEL
    from bitwright.hw_constraints.table.reference import reference_model

    assert reference_model() == reference_model()
    onnx.checker.check_model(onnx.load_model_from_string(reference_model()))
    placed = [each.kernel for each in split(reference_model(), "onnxruntime").kernels]
    assert KERNEL.weight in [each.weight for each in placed] and KERNEL.macs == max(each.macs for each in placed)
    assert get_backend("onnxruntime").load(reference_model())
