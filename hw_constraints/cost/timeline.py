"""The program over time: which engine computes what, and which transfers run beside it. Perfetto's JSON, and a picture.

One lane for each engine and one for each memory off the engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.cost.estimate import LatencyEstimate
from bitwright.hw_constraints.trace_events import Span, trace_events

_BARS = {"compute": "#4878a8", "transfer": "#d6884a"}


def spans(estimate: LatencyEstimate) -> Iterator[Span]:
    """Every operation's arithmetic, and the transfers of the memory behind that run with it or ahead of it."""
    behind = next(iter(estimate.lowered.memory.constant_bytes))
    now = 0.0
    for layer in estimate.layers:
        if layer.us is None:
            continue
        facts = {"bound by": layer.bound_by, "MACs": layer.macs, "cycles": layer.cycles}
        yield Span(lane=layer.engine, name=layer.name, start_us=now, us=layer.us, facts=facts)
        if layer.hidden_us:
            lane, name = f"to and from {behind}", f"{layer.name} weights ahead"
            yield Span(lane=lane, name=name, start_us=now - layer.hidden_us, us=layer.hidden_us, is_transfer=True)
        moved = layer.traffic.get(behind)
        own = min(layer.transfer_us, layer.us)
        if moved and moved.total and own:
            lane = f"to and from {behind}"
            yield Span(lane=lane, name=layer.name, start_us=now, us=own, is_transfer=True, facts=facts)
        now += layer.us


def title(estimate: LatencyEstimate) -> str:
    """What a timeline is of."""
    return f"{estimate.lowered.target.id} ({estimate.origin}, {estimate.model})"


def perfetto(estimate: LatencyEstimate) -> dict[str, Any]:
    """The timeline in the Trace Event Format."""
    return trace_events({title(estimate): spans(estimate)})


def draw(estimate: LatencyEstimate, file: Path) -> None:
    """Draws the timeline: a lane for each engine and for the transfers, and the bytes beside the engines below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    lanes, memory = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    found = list(spans(estimate))
    names = list(dict.fromkeys(span.lane for span in found))
    for position, lane in enumerate(names):
        mine = [span for span in found if span.lane == lane]
        color = _BARS["transfer" if mine[0].is_transfer else "compute"]
        bars = [(span.start_us, span.us) for span in mine]
        lanes.broken_barh(bars, (position - 0.4, 0.8), facecolor=color, edgecolor="white", linewidth=0.3)
    lanes.set_yticks(range(len(names)), names)
    lanes.set_title(f"{estimate.lowered.target.id}: {estimate.us:,.1f} µs ({estimate.origin})", loc="left", fontsize=10)
    times, sizes = _live(estimate)
    memory.step(times, sizes, where="post", color="#555555", linewidth=1)
    memory.fill_between(times, sizes, step="post", alpha=0.2, color="#555555")
    memory.set_ylabel("KiB on chip", fontsize=8)
    memory.set_xlabel("µs", fontsize=8)
    figure.savefig(file)


def _live(estimate: LatencyEstimate) -> tuple[list[float], list[float]]:
    """The time at which each operation starts, and what its tensors and buffers take beside the engines, KiB."""
    plan = estimate.lowered.memory
    behind = next(iter(plan.constant_bytes))
    change = [0] * (len(estimate.layers) + 1)
    roots = {ref: each for ref, (each, _) in plan.tensors.items() if ref not in estimate.lowered.program.views}
    for address in (*roots.values(), *plan.stages.values()):
        if address.memory != behind:
            change[max(address.first, 0)] += address.bytes
            change[address.last + 1] -= address.bytes
    times, sizes, now, live = [], [], 0.0, 0
    for layer, step in zip(estimate.layers, change, strict=False):
        live += step
        times.append(now)
        sizes.append(live / 1024)
        now += layer.us or 0.0
    return [*times, now], [*sizes, sizes[-1] if sizes else 0.0]
