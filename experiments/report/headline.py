"""The report's main table: each quantity in float and quantized, what changed, and where the numbers came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.experiments.figure_text import format_change, format_interval, format_value
from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Figure, Record
from bitwright.experiments.results import EvaluateResult, MeasureResult, ProveResult, QuantizeResult, TunedResult


@dataclass(frozen=True, kw_only=True)
class HeadlineRow:
    """One quantity; `origins` are the figures whose provenance stands at the end of the row."""

    quantity: str
    float_figure: Figure | None = None
    quantized: Figure | None = None
    change: str = ""
    note: str = ""
    origins: tuple[Figure, ...] = ()


def headline_rows(record: Record) -> Iterator[HeadlineRow]:
    """The rows for what the run has found so far."""
    evaluated = result_of(record, "evaluate", EvaluateResult)
    if evaluated is not None:
        yield from _quality(evaluated)
    measured = result_of(record, "measure", MeasureResult)
    if measured is not None:
        yield from _speed(measured)
    tuned = result_of(record, "autotune", TunedResult)
    if tuned is not None:
        yield from _tuned(tuned)
    quantized = result_of(record, "quantize", QuantizeResult)
    if quantized is not None:
        yield _size(quantized)
    proved = result_of(record, "prove", ProveResult)
    if proved is not None:
        for proof in proved.proofs:
            yield HeadlineRow(
                quantity="MACs in low precision",
                note=f"{proof.runtime} {proof.version}",
                quantized=proof.low_precision_macs,
                origins=(proof.low_precision_macs,),
            )


def _quality(evaluated: EvaluateResult) -> Iterator[HeadlineRow]:
    sign = -1 if evaluated.direction == "higher" else 1
    for accuracy in evaluated.quantized:
        for name, figure in accuracy.metrics.items():
            reference = evaluated.reference.metrics.get(name)
            is_judged = accuracy is evaluated.quantized[0] and name == evaluated.metric
            change = format_change(figure.value - reference.value, figure.unit) if reference else ""
            if is_judged and evaluated.drop.low is not None and evaluated.drop.high is not None:
                ends = sorted(sign * bound for bound in (evaluated.drop.low, evaluated.drop.high))
                low, high = (format_change(end, figure.unit).removesuffix(" points") for end in ends)
                change += f" (95 % from {low} to {high})"
            yield HeadlineRow(
                quantity=name,
                note=accuracy.engine,
                float_figure=reference,
                quantized=figure,
                change=change,
                origins=(evaluated.drop,) if is_judged else (figure,),
            )
    if evaluated.agreement is not None:
        yield HeadlineRow(
            quantity="agreement with float", quantized=evaluated.agreement, origins=(evaluated.agreement,)
        )
    yield HeadlineRow(quantity="SQNR of the outputs", quantized=evaluated.sqnr, origins=(evaluated.sqnr,))


def _speed(measured: MeasureResult) -> Iterator[HeadlineRow]:
    for row in measured.speeds:
        yield HeadlineRow(
            quantity="latency",
            note=row.runtime,
            float_figure=row.float_latency,
            quantized=row.quantized_latency,
            change=f"× {row.ratio.value:.3f} ({format_interval(row.ratio)})",
            origins=(row.quantized_latency, row.ratio),
        )


def _tuned(tuned: TunedResult) -> Iterator[HeadlineRow]:
    artefact, floats = tuned.latencies[tuned.choice], len(tuned.floats)
    yield HeadlineRow(
        quantity="latency, tuned",
        note=f"{tuned.choice}: {floats} of {tuned.sites} sites in float; {tuned.tries} files tried",
        float_figure=tuned.latencies["float"],
        quantized=artefact,
        change="; ".join(
            f"× {ratio.value:.3f} ({format_interval(ratio)}) of {name}"
            for name, ratio in tuned.ratios.items() if name != tuned.choice
        ),
        origins=(artefact, *tuned.ratios.values()),
    )  # fmt: skip
    closeness, before = tuned.agreement or tuned.sqnr, tuned.agreement_int8 or tuned.sqnr_int8
    yield HeadlineRow(
        quantity="agreement with float, tuned" if tuned.agreement else "SQNR of the outputs, tuned",
        quantized=closeness,
        change=f"full int8: {format_value(before.value, before.unit)}",
        origins=(closeness,),
    )


def _size(quantized: QuantizeResult) -> HeadlineRow:
    before, after = quantized.float_bytes, quantized.quantized_bytes
    return HeadlineRow(
        quantity="size on disk",
        note=quantized.artifact,
        float_figure=before,
        quantized=after,
        change=f"× {format_value(after.value / before.value, '1')}" if before.value else "",
        origins=(after,),
    )
