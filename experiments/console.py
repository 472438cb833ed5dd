"""Messages and progress: bars on a terminal, plain lines in a pipe, nothing when told to be quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Advance = Callable[..., None]
_PLAIN_SECONDS = 5.0  # in a pipe, how often a step that takes long says where it is


@dataclass(frozen=True, kw_only=True)
class Console:
    """Where a run tells the user what it does; everything goes to stderr, so that stdout stays for results."""

    quiet: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether a person is looking on."""
        return sys.stderr.isatty() and not self.quiet

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def track(self, what: str, total: int | None) -> Iterator[Advance]:
        """Progress of something with `total` steps; yields `advance(done, note="")`."""
        if self.quiet:
            yield lambda done, note="": None
        elif self.is_terminal:
            yield from _bar(what, total)
        else:
            yield _plain(what, total)


def _bar(what: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(), TextColumn("  {task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, note="")
        yield lambda done, note="": progress.update(task, completed=done, note=note)


def _plain(what: str, total: int | None) -> Advance:
    last = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            of = f"/{total}" if total is not None else ""
            print(f"    {what}: {done}{of} {note}".rstrip(), file=sys.stderr, flush=True)

    return advance
