"""Spans of time as Perfetto (ui.perfetto.dev) and Chrome read them: the Trace Event Format.

Complete events (`ph: X`) with `ts` and `dur` in microseconds; one process for each source, one thread for each lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that takes time.

    Attributes:
        lane: where it is drawn: an engine, a memory, a runtime's layers.
        name: of what runs.
        start_us: from the start of the run.
        us: how long.
        is_transfer: bytes on their way, rather than arithmetic.
        facts: more about it, shown when it is clicked.
    """

    lane: str
    name: str
    start_us: float
    us: float
    is_transfer: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def trace_events(processes: Mapping[str, Iterable[Span]]) -> dict[str, Any]:
    """Spans of several sources over one time axis, by the title of each source."""
    events: list[dict[str, Any]] = []
    for process, (title, spans) in enumerate(processes.items(), start=1):
        lanes: dict[str, int] = {}
        found = [_event(span, process, lanes.setdefault(span.lane, len(lanes) + 1)) for span in spans]
        events.append({"name": "process_name", "ph": "M", "pid": process, "args": {"name": title}})
        events += [
            {"name": "thread_name", "ph": "M", "pid": process, "tid": number, "args": {"name": lane}}
            for lane, number in lanes.items()
        ]
        events += found
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _event(span: Span, process: int, lane: int) -> dict[str, Any]:
    return {
        "name": span.name,
        "cat": "transfer" if span.is_transfer else "compute",
        "ph": "X",
        "ts": span.start_us,
        "dur": span.us,
        "pid": process,
        "tid": lane,
        "args": dict(span.facts),
    }
