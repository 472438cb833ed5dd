"""A supernet's training as TensorBoard sees it while it runs: event files beside its weights."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events"


class SupernetEvents:
    """See `nas.supernet.training.Scalars`. The file is opened by the first number: a training that has ended has none.

    Args:
        folder: gets the event files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Takes one number; what a training that was cut wrote of this step and later ones is hidden."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=global_step)
        self._writer.add_scalar(tag, scalar_value, global_step)

    def close(self) -> None:
        """Flushes everything to the disk."""
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def supernet_events(supernet: Path) -> Iterator[SupernetEvents]:
    """The events of a supernet in this folder, for as long as it trains."""
    events = SupernetEvents(supernet / EVENTS)
    try:
        yield events
    finally:
        events.close()


def copy_supernet_events(run: Path, folder: Path) -> None:
    """Puts the event files of a run's latest supernet beside those that are written from its record."""
    found = sorted(run.glob(f"search-*/supernet/{EVENTS}"), key=lambda each: each.stat().st_mtime)
    if found:
        shutil.copytree(found[-1], folder / "supernet", dirs_exist_ok=True)
