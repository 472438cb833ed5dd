"""The report on every quantized tensor (`quant.layer_report`) as it stands in the record, with advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bitwright.experiments.record import Figure
from bitwright.experiments.tensor_result import TensorQuality
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.layer_report import TensorReport, layer_report
from bitwright.quant.quantized_model import QuantizedModel


def tensor_quality(
    reference: CapturedModel,
    quantized: QuantizedModel,
    samples: Sequence[tuple[Any, ...]],
    *,
    before: QuantizedModel | None = None,
    advise: Callable[[TensorReport], str] = lambda report: "",
) -> Iterator[TensorQuality]:
    """Yields the quality of each quantized tensor, in the order of the network.

    Args:
        reference: the network in float, as `layer_report` takes it.
        quantized: after quantization.
        samples: as `layer_report` takes them.
        before: the same network quantized in the plainest way, to compare with.
        advise: says what would help a tensor.
    """
    plain = {} if before is None else {str(each.ref): each for each in layer_report(reference, before, samples)}
    for each in layer_report(reference, quantized, samples):
        yield _quality(each, quantized, plain, len(samples), advise(each))


def _quality(
    report: TensorReport, quantized: QuantizedModel, plain: Mapping[str, TensorReport], samples: int, advice: str
) -> TensorQuality:
    node = quantized.captured.graph.producers.get(report.ref)
    n = None if report.is_weight else samples
    before = plain.get(str(report.ref))
    return TensorQuality(
        tensor=str(report.ref),
        module_path=node.module_path if node else report.ref.module_path,
        op=node.op if node else "",
        kind="weight" if report.is_weight else "activation",
        format=report.format,
        sqnr=_figure(report.sqnr_db, "dB", n),
        own_sqnr=_figure(report.own_sqnr_db, "dB", n),
        clipped=_figure(100 * report.clipped, "%", n),
        low=report.low,
        high=report.high,
        counts=report.counts,
        edges=report.edges,
        before=None if before is None else _figure(before.sqnr_db, "dB", n),
        own_before=None if before is None else _figure(before.own_sqnr_db, "dB", n),
        clip_noise=_figure(100 * report.clip_noise, "%", n),
        dead_channels=report.peaks.dead if report.peaks else 0,
        channels=report.peaks.channels if report.peaks else 0,
        advice=advice,
    )


def _figure(value: float, unit: str, n: int | None) -> Figure:
    return Figure(value=round(value, 4), unit=unit, origin="measured", n=n, source="simulation in PyTorch")
