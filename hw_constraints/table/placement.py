"""Times models against the reference kernel in this process: one *placement* of all of them in memory.

What a large tensor costs hangs on the physical pages that a process was given, and that does not average out however
long the process runs. So the unit of observation is a placement: a fresh process, a few rounds of each model. Where
loading takes longer than looking, a loaded process is forked several times: what a fork writes to, gets pages of its
own, and only weights stay where they were.

A round of a model is a triple: the model, the same without the kernel, the reference, in random order, right after
each other. A triple in which another process was served is taken again. Its observation is

    (T(with) - T(without)) / branches / T(reference)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from bitwright.hw_constraints.backends import Arrays, Backend
from bitwright.hw_constraints.measure.conditions import Clock, Instant
from bitwright.hw_constraints.measure.location import location_interval
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.hw_constraints.measure.rounds import was_disturbed
from bitwright.quant.errors import InputError

_WARM_UP = 2  # calls: the first allocates, the second finds its memory
_MOST_REPEATS = 6  # of a disturbed triple, per round on average
_FEWEST_ROUNDS = 2
_LONG_SECONDS = 0.02  # what a call finds in the caches matters no more
WALL, PROCESSOR = "wall time", "processor time"
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed.

    Attributes:
        model: in the runtime's format.
        without: the same without the kernel; None where the model as a whole is meant.
        branches: how often the kernel is in the model.
    """

    model: bytes
    without: bytes | None = None
    branches: int = 1


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to look.

    Attributes:
        rounds: of each model, where they are short.
        seconds: of each model in a placement; long ones get fewer rounds, two at least.
        sample_seconds: shorter calls are repeated within a sample.
    """

    rounds: int = 12
    seconds: float = 0.08
    sample_seconds: float = 8e-4


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One placement of one model.

    Attributes:
        ratio: centre over the rounds; NaN when there was no undisturbed round and several threads.
        reference_us: median latency of the reference kernel.
        rounds: behind it.
        disturbed: triples that were dropped.
        basis: `processor time` when one thread was disturbed in most triples, else `wall time`.
    """

    ratio: float
    reference_us: float
    rounds: int
    disturbed: int
    basis: str


class _Timed:
    """A loaded model, and how often to call it for a sample."""

    def __init__(self, call: Call, clock: Clock, sample_seconds: float) -> None:
        self._call, self._clock = call, clock
        self.warm_up()
        self._calls, self.seconds = 1, math.inf
        start, end = self.sample()
        self.seconds = end.wall_s - start.wall_s
        self._calls = max(1, math.ceil(sample_seconds / self.seconds)) if self.seconds > 0 else 1
        self.sample_seconds = (self._calls + (self.seconds < _LONG_SECONDS)) * self.seconds

    def warm_up(self) -> None:
        for _ in range(_WARM_UP):
            self._call()

    def sample(self) -> tuple[Instant, Instant]:
        """Left out: the first call, which finds caches as another model left them, unlike in a network that runs on."""
        if self.seconds < _LONG_SECONDS:
            self._call()
        start = self._clock.now()
        for _ in range(self._calls):
            self._call()
        return start, self._clock.now()

    def microseconds(self, start: Instant, end: Instant, basis: str) -> float:
        spent = end.wall_s - start.wall_s if basis == WALL else end.cpu_s - start.cpu_s
        return spent / self._calls * 1e6


class _Trial:
    """The triples of one model."""

    def __init__(self, parts: Sequence[_Timed], branches: int, effort: Effort, threads: int) -> None:
        self._parts, self._branches, self._threads = parts, branches, threads
        triple = sum(part.sample_seconds for part in parts)
        self.wanted = max(_FEWEST_ROUNDS, min(effort.rounds, int(effort.seconds / triple)))
        self.seconds = self.wanted * triple
        self._calm: list[list[tuple[Instant, Instant]]] = []
        self._disturbed: list[list[tuple[Instant, Instant]]] = []

    def warm_up(self) -> None:
        for part in self._parts:
            part.warm_up()

    def round(self, order: random.Random) -> None:
        """One more triple, again while it is disturbed; not when calm ones have become the exception."""
        while len(self._disturbed) <= _MOST_REPEATS * self.wanted:
            numbers = list(range(len(self._parts)))
            order.shuffle(numbers)
            taken = {number: self._parts[number].sample() for number in numbers}
            triple = [taken[number] for number in range(len(self._parts))]
            if not any(was_disturbed(start, end, self._threads) for start, end in triple):
                self._calm.append(triple)
                return
            self._disturbed.append(triple)

    def observation(self) -> Observation:
        basis, triples, dropped = WALL, self._calm, len(self._disturbed)
        if len(triples) < self.wanted / 2 and self._threads == 1:
            basis, triples, dropped = PROCESSOR, [*self._calm, *self._disturbed], 0
        times = [
            [part.microseconds(*taken, basis) for part, taken in zip(self._parts, triple, strict=True)]
            for triple in triples
        ]
        ratios = [(whole - sum(without)) / self._branches / reference for reference, whole, *without in times]
        return Observation(
            ratio=location_interval(ratios)[0] if ratios else math.nan,
            reference_us=median(each[0] for each in times) if times else math.nan,
            rounds=len(times),
            disturbed=dropped,
            basis=basis,
        )


class Loaded:
    """Models that are loaded in this process beside the reference kernel.

    Args:
        subjects: what to time.
        reference: the reference kernel's model.
        backend: the runtime.
        threads: of the runtime.
        effort: how long to look.
        seed: of inputs.
        started: told each subject's number before it is loaded, so that a crash has a name.
        clock: another one for tests.

    Raises:
        InputError: the runtime rejects the reference kernel.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        reference: bytes,
        backend: Backend,
        *,
        threads: int,
        effort: Effort,
        seed: int,
        started: Callable[[int], None],
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        start = clock.now().wall_s
        self._inputs: list[Arrays] = []
        self._rejected: dict[int, str] = {}
        self._trials: dict[int, _Trial] = {}

        def timed(model: bytes) -> _Timed:
            session = backend.load(model, threads=threads)
            self._inputs.append(made_up_inputs(session, "kernel", seed))
            return _Timed(partial(session.run, self._inputs[-1]), clock, effort.sample_seconds)

        base = timed(reference)
        for number, subject in enumerate(subjects):
            started(number)
            try:
                parts = [base, timed(subject.model), *([timed(subject.without)] if subject.without else [])]
            except InputError as error:
                self._rejected[number] = str(error)
            else:
                self._trials[number] = _Trial(parts, subject.branches, effort, threads)
        self.load_seconds = clock.now().wall_s - start

    @property
    def seconds(self) -> float:
        """What a run will take, if nothing disturbs it."""
        return sum(trial.seconds for trial in self._trials.values())

    def run(self, seed: int) -> list[Observation | str]:
        """Times them.

        Args:
            seed: of the order.

        Returns:
            For each subject what was seen, or the runtime's message when it rejected the model.
        """
        order = random.Random(seed)
        for batch in self._inputs:
            for array in batch.values():
                array *= 1  # in a fork: gives it pages of its own
        for trial in self._trials.values():
            trial.warm_up()
        for turn in range(max((trial.wanted for trial in self._trials.values()), default=0)):
            now = [trial for trial in self._trials.values() if turn < trial.wanted]
            order.shuffle(now)
            for trial in now:
                trial.round(order)
        outcome = {number: trial.observation() for number, trial in self._trials.items()} | self._rejected
        return [outcome[number] for number in sorted(outcome)]


def plain(outcome: Observation | str) -> dict[str, Any]:
    """For the pipe to the parent process."""
    return {"rejected": outcome} if isinstance(outcome, str) else vars(outcome)
