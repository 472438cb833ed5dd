"""A profile over time for Perfetto: measured layers with what lies between, and modelled ones on the same axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bitwright.hw_constraints.profile.report import NetworkProfile
from bitwright.hw_constraints.trace_events import Span, trace_events


def perfetto(profile: NetworkProfile, modelled: tuple[str, Iterable[Span]] | None = None) -> dict[str, Any]:
    """The profile in the Trace Event Format.

    Args:
        profile: of a network; layers are drawn one behind the other, as long as they were measured.
        modelled: the title and the spans of the cost model's own timeline (`cost.timeline`).
    """
    title = f"{profile.runtime} {profile.version} ({profile.origin})"
    processes: dict[str, Iterable[Span]] = {title: spans(profile)}
    if modelled is not None:
        processes[modelled[0]] = modelled[1]
    return trace_events(processes)


def spans(profile: NetworkProfile) -> Iterator[Span]:
    """Layers in the file's order, each behind the conversions that it waits for; the overhead at the end.

    A profiler that adds kernels up over many runs says how long each took, not when: the order is the file's.
    """
    now = 0.0
    placed = 0.0
    for layer in profile.layers:
        if layer.conversions_us:
            yield Span(lane="conversions", name=f"before {layer.name}", start_us=now, us=layer.conversions_us)
            now += layer.conversions_us
            placed += layer.conversions_us
        if not layer.us:
            continue
        facts = {
            "module": layer.module,
            "line": layer.source,
            "ran in": str(layer.state),
            "kernel": layer.kernel,
            "with": ", ".join(layer.members),
            "modelled us": layer.modelled_us,
            "predicted us": layer.predicted_us,
            "remark": layer.remark,
        }
        shown = {key: value for key, value in facts.items() if value not in ("", None)}
        yield Span(lane="layers", name=layer.name, start_us=now, us=layer.us, facts=shown)
        now += layer.us
    for name, us in (("other conversions", profile.conversions_us - placed), ("outside kernels", profile.overhead_us)):
        if us > 0:
            yield Span(lane="conversions" if name.startswith("other") else "runtime", name=name, start_us=now, us=us)
            now += us
