"""The console of a try: progress without the stages' own lines, and an end to it when the time is up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bitwright.experiments.console import Advance, Console


class TimeIsUp(Exception):
    """The budget is spent in the middle of a try."""


@dataclass(frozen=True, kw_only=True)
class DeadlineConsole(Console):
    """Raises `TimeIsUp` at the next step of whatever reports its progress; what keeps its steps goes on there later.

    Attributes:
        until: on the clock of `time.monotonic`.
    """

    until: float

    def say(self, text: str) -> None:
        """Nothing: a try is one line, which the search says."""

    @contextmanager
    def track(self, what: str, total: int | None) -> Iterator[Advance]:
        """See `Console`."""
        with super().track(what, total) as advance:

            def check(done: int, note: str = "") -> None:
                advance(done, note)
                if time.monotonic() > self.until:
                    raise TimeIsUp

            yield check
