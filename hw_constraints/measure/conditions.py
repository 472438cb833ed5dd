"""The conditions of a measurement: pinned processors, and clocks that tell when somebody else was served.

Standard library of Python 3.8 alone: the runner on a device measures with this file.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.hw_constraints.machine import usable_cpus
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Freed memory goes back to the system and faults in again, which makes latencies jump: keep it (mallopt(3)).
QUIET_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
_STAT = Path("/proc/stat")
_WATCH_SECONDS = 0.05
_IDLE_FIELDS = (4, 5)  # idle, iowait: proc_stat(5)


@dataclass(frozen=True)  # Python 3.8 has no kw_only
class Instant:
    """A reading of the clocks.

    Attributes:
        wall_s: monotonic time, seconds.
        cpu_s: processor time of all threads of this process, seconds.
        preemptions: times that another process took a processor from this one.
    """

    wall_s: float
    cpu_s: float
    preemptions: int


class Clock:
    """The system's clocks."""

    def now(self) -> Instant:
        """Reads them."""
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Instant(wall_s=time.perf_counter(), cpu_s=time.process_time(), preemptions=switches)


def quietest_cpus(count: int) -> tuple[int, ...]:
    """The usable processors that were least busy just now.

    Raises:
        InputError: there are fewer.
    """
    usable = usable_cpus()
    if count > len(usable):
        raise InputError(f"threads = {count}; this process may use {len(usable)} processors")
    if not _STAT.exists():
        return usable[:count]
    before = _busy_ticks()
    time.sleep(_WATCH_SECONDS)
    after = _busy_ticks()
    return tuple(sorted(usable, key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))[:count])


def _busy_ticks() -> dict[int, int]:
    ticks = {}
    for line in _STAT.read_text().splitlines():
        fields = line.split()
        if fields[0].startswith("cpu") and fields[0] != "cpu":
            busy = (int(field) for at, field in enumerate(fields[1:], 1) if at not in _IDLE_FIELDS)
            ticks[int(fields[0][3:])] = sum(busy)
    return ticks


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Keeps this thread, and threads that it starts, on as many processors; where the system allows it.

    Raises:
        InputError: there are fewer processors than threads.
    """
    cpus = quietest_cpus(threads)
    if not hasattr(os, "sched_setaffinity"):
        yield cpus
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield cpus
    finally:
        os.sched_setaffinity(0, before)
