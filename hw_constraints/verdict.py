"""The verdict: what the measured figures mean, in plain words.

A pure function of figures that others measured: no clock, no runtime, no file. A difference whose 95 % interval
contains "none" is called noise, a figure that was not measured is called that, and what is proposed follows from
the proof's own reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from bitwright.hw_constraints.figures import Figures, FloatLayer, Gate, MetricComparison, SpeedComparison


class Speed(StrEnum):
    """What the latency comparison says."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    MIXED = "not the same in every runtime"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The figures in words.

    Attributes:
        headline: one sentence.
        speed: over all runtimes.
        statements: one sentence for each figure.
        holds_back: what costs time or accuracy, the largest first.
        changes: what to change, in that order.
        gates: the user's limits with their outcome.
        passed: whether all gates passed.
    """

    headline: str
    speed: Speed
    statements: tuple[str, ...]
    holds_back: tuple[str, ...]
    changes: tuple[str, ...]
    gates: tuple[Gate, ...]
    passed: bool

    def __str__(self) -> str:
        sections = (
            ("", self.statements),
            ("What holds it back", self.holds_back),
            ("What to change", self.changes),
            ("Gates", [str(gate) for gate in self.gates]),
        )
        blocks = [self.headline]
        for title, lines in sections:
            if lines:
                blocks.append("\n".join([*([f"{title}:"] if title else []), *(f"- {line}" for line in lines)]))
        return "\n\n".join(blocks)


def judge(figures: Figures) -> Verdict:
    """Puts figures into words."""
    speed = _overall([compare_speed(each) for each in figures.speed])
    passed = all(gate.passed for gate in figures.gates)
    return Verdict(
        headline=_headline(figures, speed, passed),
        speed=speed,
        statements=tuple(_statements(figures)),
        holds_back=tuple(_holds_back(figures)),
        changes=tuple(dict.fromkeys(_changes(figures, speed))),
        gates=figures.gates,
        passed=passed,
    )


def compare_speed(comparison: SpeedComparison) -> Speed:
    """Faster or slower only when the interval of the ratio excludes 1."""
    if comparison.ratio.contains(1.0):
        return Speed.NO_DIFFERENCE
    return Speed.FASTER if comparison.ratio.high < 1.0 else Speed.SLOWER


def _overall(each: Sequence[Speed]) -> Speed:
    if not each:
        return Speed.NOT_MEASURED
    return each[0] if len(set(each)) == 1 else Speed.MIXED


def _headline(figures: Figures, speed: Speed, passed: bool) -> str:
    quality = "; ".join(_metric_in_short(each) for each in figures.metrics) or "quality was not measured"
    if speed is Speed.NOT_MEASURED:
        gain = "its speed was not measured here" + (f", {figures.modelled}" if figures.modelled else "")
    elif speed is Speed.MIXED:
        gain = ", ".join(f"{_gain(each)} in {each.runtime}" for each in figures.speed)
    else:
        gain = _gain(min(figures.speed, key=lambda each: each.ratio.value))
    outcome = "" if passed else "; not every gate passed"
    return f"{figures.network} on {figures.target}: {gain}; {quality}{outcome}."


def _gain(comparison: SpeedComparison) -> str:
    ratio, kind = comparison.ratio, compare_speed(comparison)
    if not isfinite(ratio.high):
        return f"a ratio of {ratio.value:.3f} from {comparison.pairs} pairs, too few to tell it from noise"
    if kind is Speed.FASTER:
        return f"{1 / ratio.value:.2f}x as fast (95 % between {1 / ratio.high:.2f}x and {1 / ratio.low:.2f}x)"
    if kind is Speed.SLOWER:
        return (
            f"slower by {100 * (ratio.value - 1):.0f} % (95 % between {_percent(ratio.low)} and {_percent(ratio.high)})"
        )
    return (
        f"no faster: a ratio of {ratio.value:.3f} is inside the noise (95 % from {ratio.low:.3f} to {ratio.high:.3f})"
    )


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.0f} %"


def _metric_in_short(metric: MetricComparison) -> str:
    change = metric.quantized_value - metric.float_value
    return f"{metric.name} {metric.quantized_value:.4g}{metric.unit} ({change:+.3g} against float)"


def _statements(figures: Figures) -> Iterator[str]:
    for speed in figures.speed:
        times = f"{speed.quantized_us / 1e3:.3f} ms against {speed.float_us / 1e3:.3f} ms in float"
        yield f"{speed.runtime} on {speed.device}: {times}, {_gain(speed)}; measured over {speed.pairs} pairs."
    if figures.modelled:
        yield f"Modelled, not measured, on {figures.target}: {figures.modelled}."
    for metric in figures.metrics:
        yield _metric_statement(metric)
    if figures.agreement:
        agreement = figures.agreement
        distance = "" if agreement.sqnr_db is None else f", outputs at {agreement.sqnr_db:.1f} dB SQNR"
        yield f"Decides as the float network on {100 * agreement.share:.2f} % of {agreement.samples} samples{distance}."
    if figures.float_bytes and figures.quantized_bytes:
        ratio = figures.quantized_bytes / figures.float_bytes
        yield (
            f"{figures.quantized_bytes / 1e6:.2f} MB on disk, {ratio:.2f} of the float file's "
            f"{figures.float_bytes / 1e6:.2f} MB."
        )
    if figures.execution:
        share = f"{100 * figures.execution.low_precision_macs:.1f} % of the multiply-accumulates"
        done = (
            "ran in low precision"
            if figures.execution.executed
            else "are in low precision in the file; none ran so here"
        )
        yield f"{share} {done}."
    if figures.unverified:
        yield f"Rests on what nobody has verified: {'; '.join(figures.unverified)}."


def _metric_statement(metric: MetricComparison) -> str:
    before, after = f"{metric.float_value:.4g}{metric.unit}", f"{metric.quantized_value:.4g}{metric.unit}"
    if metric.difference is None:
        return f"{metric.name}: {after} against {before} in float."
    interval = f"95 % from {metric.difference.low:+.3g} to {metric.difference.high:+.3g}"
    if metric.difference.contains(0.0):
        return f"{metric.name}: {after} against {before} in float; the difference is inside the noise ({interval})."
    better = (metric.difference.value > 0) == metric.higher_is_better
    return f"{metric.name}: {after} against {before} in float, {'better' if better else 'worse'} ({interval})."


def _holds_back(figures: Figures) -> Iterator[str]:
    execution = figures.execution
    if execution is None:
        return
    for reason, layers in _by_reason(execution.float_layers):
        names = ", ".join(each.layer for each in layers[:3]) + (
            f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        )
        share = _time_share(layers)
        time = "" if share is None else f" ({100 * share:.0f} % of the time)"
        yield f"{len(layers)} layer{'s' if len(layers) > 1 else ''} in float{time}: {reason}: {names}"
    if execution.conversion_share:
        yield f"{100 * execution.conversion_share:.0f} % of the time converts between formats and layouts"


def _by_reason(layers: Sequence[FloatLayer]) -> list[tuple[str, list[FloatLayer]]]:
    """Layers with the same reason together, the costliest reason first."""
    table: dict[str, list[FloatLayer]] = {}
    for layer in sorted(layers, key=lambda each: -(each.time_share or 0.0)):
        table.setdefault(layer.reason, []).append(layer)
    return sorted(table.items(), key=lambda item: -(_time_share(item[1]) or 0.0))


def _time_share(layers: Sequence[FloatLayer]) -> float | None:
    known = [each.time_share for each in layers if each.time_share is not None]
    return sum(known) if known else None


def _changes(figures: Figures, speed: Speed) -> Iterator[str]:
    execution = figures.execution
    if execution:
        for _, layers in _by_reason(execution.float_layers):
            yield from (f"{each.layer}: {each.suggestion}" for each in layers[:1] if each.suggestion)
        all_low = execution.low_precision_macs == 1.0
        if speed in (Speed.SLOWER, Speed.NO_DIFFERENCE) and all_low:
            yield "every layer already runs in low precision: the network is too small to gain; keep it in float here"
    for metric in figures.metrics:
        if metric.difference and not metric.difference.contains(0.0):
            worse = (metric.difference.value < 0) == metric.higher_is_better
            if worse:
                yield f"{metric.name} suffers: keep the most sensitive layers in float, or train on (QAT)"
