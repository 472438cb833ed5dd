"""Where candidates are evaluated: what the driver needs to know of it, and the driver's own process as the simplest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from bitwright.nas.result import Result
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.standing import Standing

T = TypeVar("T")
Evaluate = Callable[[Candidate, Setup], Result]


class Workers(Protocol):
    """Evaluates candidates; results come in any order.

    Attributes:
        isolated: whether a candidate that takes its process down leaves the driver alive.
    """

    isolated: bool

    @property
    def slots(self) -> int:
        """How many candidates can be evaluated at the same time; may change while the search goes on."""

    def on_device(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls a function where latency is measured."""

    def begin(self, setup: Setup) -> None:
        """To be called before the first candidate: what all evaluations share from here on; none is under way."""

    def submit(self, candidate: Candidate, standing: Standing | None = None) -> None:
        """Takes one more, with what it has to beat; one that is under way already stays so."""

    def next(self) -> Result:
        """Waits for the next result of those that were submitted."""


class InProcess:
    """Evaluates one candidate after the other, here."""

    isolated = False
    slots = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self._queue: deque[tuple[Candidate, Standing | None]] = deque()

    def on_device(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """See `Workers`."""
        return function(*args, **kwargs)

    def begin(self, setup: Setup) -> None:
        """See `Workers`."""
        self._setup = setup

    def submit(self, candidate: Candidate, standing: Standing | None = None) -> None:
        """See `Workers`."""
        if all(candidate != each for each, _ in self._queue):
            self._queue.append((candidate, standing))

    def next(self) -> Result:
        """See `Workers`."""
        candidate, standing = self._queue.popleft()
        return self.evaluate(candidate, self._setup.against(standing))
