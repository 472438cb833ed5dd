"""The report on every quantized tensor (`quant.layer_report`) as it stands in the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bitwright.experiments.record import Figure
from bitwright.experiments.results import TensorQuality
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.layer_report import layer_report
from bitwright.quant.quantized_model import QuantizedModel


def tensor_quality(
    reference: CapturedModel, quantized: QuantizedModel, samples: Sequence[tuple[Any, ...]]
) -> Iterator[TensorQuality]:
    """Yields the quality of each quantized tensor, in the order of the network; arguments as `layer_report`."""
    producers = quantized.captured.graph.producers
    for each in layer_report(reference, quantized, samples):
        node = producers.get(each.ref)
        n = None if each.is_weight else len(samples)
        yield TensorQuality(
            tensor=str(each.ref),
            module_path=node.module_path if node else each.ref.module_path,
            op=node.op if node else "",
            kind="weight" if each.is_weight else "activation",
            format=each.format,
            sqnr=_figure(each.sqnr_db, "dB", n),
            own_sqnr=_figure(each.own_sqnr_db, "dB", n),
            clipped=_figure(100 * each.clipped, "%", n),
            low=each.low,
            high=each.high,
            counts=each.counts,
            edges=each.edges,
        )


def _figure(value: float, unit: str, n: int | None) -> Figure:
    return Figure(value=round(value, 4), unit=unit, origin="measured", n=n, source="simulation in PyTorch")
