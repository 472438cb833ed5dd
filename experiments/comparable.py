"""The quantities of a run that another run can be compared with, each with the conditions under which it holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Figure, Record
from bitwright.experiments.results import EvaluateResult, MeasureResult, ProveResult, QuantizeResult

_ANOTHER_SESSION = "timed in another session; what compares is the ratio to float"


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """A quantity.

    Attributes:
        figure: the number.
        higher_is_better: its direction.
        conditions: what must be equal in the other run.
        is_exact: repeated, it comes out the same, so that every difference is one.
        is_share: a share of `figure.n` samples in percent, whose noise is binomial.
        has_gate: whether the recipe sets a limit on it.
        not_judged: why no difference of it is called better or worse.
        is_measurable: whether measuring both artefacts side by side decides it better than two records can.
    """

    figure: Figure
    higher_is_better: bool
    conditions: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = False
    is_share: bool = False
    has_gate: bool = False
    not_judged: str = ""
    is_measurable: bool = False

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """Value with its 95 % interval, its own or the binomial one; None when the noise is not known."""
        figure = self.figure
        if figure.low is not None and figure.high is not None:
            return figure.value, figure.low, figure.high
        if self.is_share and figure.n:
            return wilson_interval(figure.value, figure.n)
        return None


def wilson_interval(percent: float, n: int) -> tuple[float, float, float]:
    """A share of n samples with its 95 % score interval, in percent (Wilson, JASA 22 (1927), 209–212)."""
    z, share = NormalDist().inv_cdf(0.975), percent / 100
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and 100 % the interval ends there, but for rounding.
    return percent, min(percent, 100 * (centre - half)), max(percent, 100 * (centre + half))


def comparables(record: Record) -> dict[str, Comparable]:
    """By name; engines are named without their version, so that an upgrade compares."""
    return {name: quantity for part in (_quality, _speed, _proof, _size) for name, quantity in part(record)}


def _quality(record: Record) -> Iterator[tuple[str, Comparable]]:
    evaluated = result_of(record, "evaluate", EvaluateResult)
    if evaluated is None:
        return
    metric, gate = evaluated.metric, record.recipe["evaluate"]["gate"]
    conditions = {"data": record.recipe["data"], "metric": metric}
    higher = evaluated.direction == "higher"
    built_in = record.recipe["evaluate"]["entry"] is None
    for network, accuracy in (("float", evaluated.reference), *(("quantized", each) for each in evaluated.quantized)):
        figure = accuracy.metrics[metric]
        judged_first = network == "quantized" and accuracy is evaluated.quantized[0]
        yield (
            f"{metric} {network}, {engine_name(accuracy.engine)}",
            Comparable(
                figure=figure,
                higher_is_better=higher,
                conditions={**conditions, "number of samples": figure.n},
                is_share=built_in and metric == "top1",
                has_gate=judged_first and (gate["bound"] is not None or gate["max_drop"] is not None),
                is_measurable=network == "quantized",
            ),
        )
    samples = {**conditions, "number of samples": evaluated.sqnr.n}
    has_drop = gate["max_drop"] is not None
    yield (
        f"drop of {metric}",
        Comparable(
            figure=evaluated.drop, higher_is_better=False, conditions=samples, has_gate=has_drop, is_measurable=True
        ),
    )
    if evaluated.agreement is not None:
        has_gate = gate["min_agreement"] is not None
        yield (
            "agreement with float",
            Comparable(
                figure=evaluated.agreement,
                higher_is_better=True,
                conditions=samples,
                is_share=True,
                has_gate=has_gate,
            ),
        )
    yield (
        "SQNR of the outputs",
        Comparable(figure=evaluated.sqnr, higher_is_better=True, conditions=samples, is_exact=True),
    )


def _speed(record: Record) -> Iterator[tuple[str, Comparable]]:
    measured = result_of(record, "measure", MeasureResult)
    if measured is None:
        return
    conditions = {"device": measured.device, "number of threads": measured.threads}
    has_gate = record.recipe["measure"]["gate"]["max_ratio"] is not None
    for row in measured.speeds:
        engine = engine_name(row.runtime)
        yield (
            f"quantized / float latency, {engine}",
            Comparable(
                figure=row.ratio,
                higher_is_better=False,
                conditions=conditions,
                has_gate=has_gate,
                is_measurable=True,
            ),
        )
        for network, figure in (("float", row.float_latency), ("quantized", row.quantized_latency)):
            yield (
                f"{network} latency, {engine}",
                Comparable(figure=figure, higher_is_better=False, conditions=conditions, not_judged=_ANOTHER_SESSION),
            )


def _proof(record: Record) -> Iterator[tuple[str, Comparable]]:
    proved = result_of(record, "prove", ProveResult)
    has_gate = record.recipe["prove"]["gate"]["min_mac_share"] is not None
    for proof in proved.proofs if proved else ():
        yield (
            f"MACs in low precision, {engine_name(proof.runtime)}",
            Comparable(
                figure=proof.low_precision_macs,
                higher_is_better=True,
                # Which kernels a runtime has depends on the processor's instruction sets.
                conditions={"processor": record.host.cpu, "instruction sets": record.host.isa},
                is_exact=True,
                has_gate=has_gate,
            ),
        )


def _size(record: Record) -> Iterator[tuple[str, Comparable]]:
    quantized = result_of(record, "quantize", QuantizeResult)
    if quantized is not None:
        yield (
            "size on disk",
            Comparable(
                figure=quantized.quantized_bytes,
                higher_is_better=False,
                conditions={"artefact": quantized.artifact},
                is_exact=True,
            ),
        )


def engine_name(engine: str) -> str:
    """The engine without version or note: `onnxruntime 1.31.1` is `onnxruntime`."""
    return engine.split()[0].lower().rstrip(",")
