"""The driver: asks the sampler, has candidates evaluated, writes each result, tells it.

A trial that a killed driver left running is taken over as it is, under its own number: it is asked for again with the
same sampler (seeded by the number), so it stands for the same candidate, and is evaluated unless its result is on the
disk. So nothing is lost and nothing is told twice.

In batches (`SearchSettings.batch`) a batch is told only when all of it is known, in the order of its numbers: what the
sampler proposes follows from the seed alone, however long evaluations take and whoever is killed in between.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import optuna

from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.sampling.known import Known, Screen
from bitwright.nas.sampling.registry import make_sampler
from bitwright.nas.search_outcome import Told
from bitwright.nas.settings import SearchSettings
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, sample, size
from bitwright.nas.standing import Standings
from bitwright.nas.study import adopted, begin_attempt, keep, note_candidate, running, tell, told
from bitwright.nas.workers import Workers
from bitwright.quant.errors import InputError

_MOST_REPEATS = 100  # in a row: the sampler has nothing new to propose
_MOST_FAILURES = 5  # in a row: it is not the candidates' fault
_POOL = 64  # candidates that are captured and linted for one suggestion, at most
_MOST_ATTEMPTS = 2  # of a candidate that may have taken the driver's own process down


class Driver:
    """Goes on until enough different candidates have been tried.

    Attributes:
        trials: what was told, in order.
        recovered: how many trials a killed driver had left running.
    """

    def __init__(
        self,
        study: optuna.Study,
        setup: Setup,
        settings: SearchSettings,
        workers: Workers,
        on_told: Callable[[Told], None],
        screen: Screen | None = None,
        earlier: Sequence[Result] = (),
    ) -> None:
        self.study, self.setup, self.settings = study, setup, settings
        self.workers, self.on_told = workers, on_told
        self.files = ResultFiles(setup.results)
        self.trials: list[Told] = []
        self.different: set[str] = set()
        self.recovered = 0
        self.known: Known | None = None
        if settings.needs_screen or earlier:
            self.known = Known(
                space=setup.space,
                objectives=settings.objectives,
                screen=screen if settings.needs_screen else None,
                earlier=earlier,
                pool=_POOL,
            )
        self._standings = Standings(settings.objectives, setup.maximize)
        self._waiting: dict[int, tuple[optuna.Trial, Candidate]] = {}
        self._known: dict[str, Result] = {}
        self._stopping = False

    def run(self) -> None:
        """Searches.

        Raises:
            InputError: candidate after candidate fails, or a result that the study has is gone.
            KeyboardInterrupt: after Ctrl-C, when all that was running has been told; a second one ends at once.
        """
        for number, key in told(self.study):
            self._count(number, self._written(key))
        with self._draining():
            for frozen in running(self.study):
                self.recovered += 1
                self._seed_sampler(frozen.number)
                self._place(adopted(self.study, frozen))
            while True:
                while self._may_ask():
                    self._seed_sampler(self._asked)
                    self._place(self.study.ask())
                if not self._waiting:
                    break
                for number in self._ready():
                    self._tell(number)
        if self._stopping:
            raise KeyboardInterrupt

    def _seed_sampler(self, asked: int) -> None:
        self.study.sampler = make_sampler(self.settings.sampler, seed=self.settings.seed, told=asked, known=self.known)

    @property
    def _asked(self) -> int:
        return len(self.trials) + len(self._waiting)

    def _may_ask(self) -> bool:
        batch = self.settings.batch
        if self._stopping:
            return False
        if batch is not None and self._asked % batch:
            return True  # batches are whole
        if len(self._waiting) >= (1 if batch is not None else self.workers.slots):
            return False
        trying = {candidate.key for _, candidate in self._waiting.values()} - self.different
        enough = len(self.different) + len(trying) >= min(self.settings.trials, size(self.setup.space))
        return not enough and self._in_a_row(lambda each: each.repeated) < _MOST_REPEATS

    def _place(self, trial: optuna.Trial) -> None:
        """Has a trial's candidate evaluated, unless its result is known or under way."""
        candidate = sample(self.setup.space, trial)
        note_candidate(trial, candidate)
        under_way = any(each.key == candidate.key for _, each in self._waiting.values())
        self._waiting[trial.number] = (trial, candidate)
        known = self._known.get(candidate.key) or self.files.get(candidate.key)
        attempt = 1
        if known is None and not under_way and not self.workers.isolated:
            attempt = begin_attempt(trial)
        keep(trial)
        if known is None and attempt > _MOST_ATTEMPTS:
            known = self._given_up(candidate)
            self.files.put(known)
        if known is not None:
            self._known[candidate.key] = known
        elif not under_way:
            self.workers.submit(candidate, self._standings.now if self.settings.give_up else None)

    def _given_up(self, candidate: Candidate) -> Result:
        return Result(
            key=candidate.key,
            values=dict(candidate.values),
            outcome=Outcome.FAILED,
            stage="",
            reason=f"its evaluation was interrupted {_MOST_ATTEMPTS} times",
        )

    def _ready(self) -> list[int]:
        """Numbers of trials that can be told now; waits until there are some."""
        while True:
            known = [number for number in sorted(self._waiting) if self._waiting[number][1].key in self._known]
            if known and (self.settings.batch is None or len(known) == len(self._waiting)):
                return known
            result = self.workers.next()
            if self.files.get(result.key) != result:  # a worker that shares the folder has written it
                self.files.put(result)  # before it is told: what is on the disk is never evaluated again
            self._known[result.key] = result

    def _tell(self, number: int) -> None:
        trial, candidate = self._waiting.pop(number)
        result = self._known[candidate.key]
        tell(self.study, trial, result, self.settings.objectives)
        self._count(number, result)
        if self._in_a_row(lambda each: each.result.outcome is Outcome.FAILED) >= _MOST_FAILURES:
            raise InputError(
                f"search: {_MOST_FAILURES} candidates in a row failed; the last one ({candidate}) with {result.reason}"
            )

    def _written(self, key: str) -> Result:
        result = self.files.get(key)
        if result is None:
            raise InputError(
                f"{self.files.folder}: the result of candidate {key} is gone, though the study has it; "
                "put it back, or name another folder"
            )
        return result

    def _count(self, number: int, result: Result) -> None:
        self.trials.append(Told(number=number, result=result, repeated=result.key in self.different))
        self.different.add(result.key)
        self._known[result.key] = result
        self._standings.add(result)
        self.on_told(self.trials[-1])

    def _in_a_row(self, condition: Callable[[Told], bool]) -> int:
        count = 0
        for each in reversed(self.trials):
            if not condition(each):
                break
            count += 1
        return count

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """While this lasts the first Ctrl-C lets what is running finish, and the second one ends it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
