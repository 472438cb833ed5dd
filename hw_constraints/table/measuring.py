"""Measures kernels and networks into a table, in batches, until each interval is narrow enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.machine import load_average
from bitwright.hw_constraints.measure.location import location_interval
from bitwright.hw_constraints.table.bench import Bench
from bitwright.hw_constraints.table.key import spin_turns_per_us
from bitwright.hw_constraints.table.placement import PROCESSOR, WALL, Effort
from bitwright.hw_constraints.table.row import KernelRow, NetworkRow, hash_of_model
from bitwright.hw_constraints.table.session import Session
from bitwright.hw_constraints.table.store import KernelTable

Row = KernelRow | NetworkRow
# Chance hardly does that: the two models differ in more than the kernel.
_LESS_THAN_NOTHING = "its minimal model takes less time with the kernel than without"


@dataclass(frozen=True, kw_only=True)
class Precision:
    """When a latency is known well enough.

    Attributes:
        half_width: of the 95 % interval, in relation to the ratio.
        least: a half width that is enough however small the ratio is, in units of the reference kernel's time:
            below, a kernel is lost in any network.
        placements: at a time; an interval over fewer than 6 in all has no bounds.
        most: placements after which the interval is taken as it is.
    """

    half_width: float = 0.04
    least: float = 5e-4
    placements: int = 3
    most: int = 9

    @property
    def again(self) -> Precision:
        """Of a second look: in more processes than a first one has at most, by which it is known for one."""
        return replace(self, placements=self.most + 1, most=2 * self.most + 2)

    def reached(self, ratio: float, low: float, high: float) -> bool:
        """Whether an interval is narrow enough."""
        return (high - low) / 2 <= max(self.half_width * abs(ratio), self.least)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network to measure as a whole.

    Attributes:
        name: how reports call it.
        file: in the runtime's format.
        kernels: what the runtime runs for it, in order.
    """

    name: str
    file: Path
    kernels: tuple[Kernel, ...]


@dataclass
class _Trial:
    """A subject with what has been seen of it."""

    subject: Kernel | Network
    observations: list[dict[str, Any]] = field(default_factory=list)
    rejected: str = ""

    @property
    def job(self) -> dict[str, Any]:
        if isinstance(self.subject, Kernel):
            return {"kernel": self.subject.to_json()}
        return {"file": str(Path(self.subject.file).absolute())}

    def interval(self) -> tuple[float, float, float]:
        ratios = [each["ratio"] for each in self.observations if not math.isnan(each["ratio"])]
        return location_interval(ratios) if ratios else (math.nan, -math.inf, math.inf)

    def is_open(self, precision: Precision) -> bool:
        done = self.rejected or len(self.observations) >= precision.most
        return not done and not precision.reached(*self.interval())

    def row(self) -> Row:
        ratio, low, high = self.interval()
        if not self.rejected and high <= 0:
            self.rejected = _LESS_THAN_NOTHING
        figures: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "rejected": self.rejected}
        if not self.rejected:
            by_processor = any(each["basis"] == PROCESSOR for each in self.observations)
            figures |= {
                **{"ratio": ratio, "low": low, "high": high, "placements": len(self.observations)},
                "rounds": sum(each["rounds"] for each in self.observations),
                "disturbed": sum(each["disturbed"] for each in self.observations),
                "basis": PROCESSOR if by_processor else WALL,
            }
        if isinstance(self.subject, Kernel):
            return KernelRow(kernel=self.subject, **figures)
        network = self.subject
        return NetworkRow(
            name=network.name,
            model_hash=hash_of_model(Path(network.file).read_bytes()),
            kernels=network.kernels,
            **figures,
        )


def measure_batch(
    bench: Bench, subjects: Sequence[Kernel | Network], *, precision: Precision, effort: Effort, seed: int
) -> tuple[list[Row], list[float]]:
    """Measures a few subjects side by side.

    Returns:
        A row for each, and the reference kernel's latencies, µs.

    Raises:
        InputError: the measuring process died.
    """
    trials = [_Trial(subject) for subject in subjects]
    while open_ := [trial for trial in trials if trial.is_open(precision)]:
        found = bench.measure([trial.job for trial in open_], placements=precision.placements, effort=effort, seed=seed)
        for trial, each in zip(open_, found, strict=True):
            trial.rejected = each.get("rejected", "")
            trial.observations += each.get("placements", [])
        seed += precision.placements
    references = [each["reference_us"] for trial in trials for each in trial.observations]
    return [trial.row() for trial in trials], [each for each in references if not math.isnan(each)]


class Recording:
    """A session in which rows go into a table as they come; ended at any moment, the table is whole."""

    def __init__(self, table: KernelTable) -> None:
        self._table = table
        self._start = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="microseconds")
        self._spin, self._load = spin_turns_per_us(), load_average()
        self._references: list[float] = []
        self._kernels = 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._start

    def add(self, rows: Sequence[Row], references: Iterable[float]) -> None:
        """Writes a batch and the session so far, in one transaction."""
        self._references += references
        self._kernels += len(rows)
        known = bool(self._references)
        self._table.add(rows, sessions=[self._session()] if known else ())

    def _session(self) -> Session:
        return Session(
            started=self._started,
            seconds=round(self.seconds, 3),
            kernels=self._kernels,
            reference_us=median(self._references),
            spin_turns_per_us=self._spin,
            load_before=self._load,
            load_after=load_average(),
        )


def measure_into(
    table: KernelTable,
    bench: Bench,
    batches: Iterator[Sequence[Kernel | Network]],
    *,
    seconds: float,
    precision: Precision | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[Row], float], None] = lambda rows, seconds: None,
) -> None:
    """Measures batch after batch until there are none or the time is up; kernels that it knows, more closely.

    Args:
        table: where rows go, open for writing.
        bench: the measuring process for the table's runtime and threads.
        batches: what to measure; asked for the next one when the rows of the last one are in the table.
        seconds: no batch begins after so long.
        precision: when a latency is known well enough.
        effort: of each placement.
        seed: of weights, inputs and order.
        progress: told of each batch's rows and the seconds so far.

    Raises:
        InputError: the measuring process died, or the table cannot be written; what was measured is kept.
    """
    recording, precision = Recording(table), precision or Precision()
    while recording.seconds < seconds and (batch := next(batches, None)) is not None:
        known = all(isinstance(each, Kernel) and each.key in table for each in batch)
        closely = precision.again if known else precision
        rows, references = measure_batch(
            bench, batch, precision=closely, effort=effort or Effort(), seed=seed + len(table) + known
        )
        recording.add(rows, references)
        progress(rows, recording.seconds)
