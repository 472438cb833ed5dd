"""Signal to quantization noise of every quantized tensor, and the histogram that its clip lines cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from bitwright.experiments.metrics import sqnr_db
from bitwright.experiments.record import Figure
from bitwright.experiments.results import TensorQuality
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel

BINS = 64


@dataclass
class _Seen:
    """What has flowed through one activation so far."""

    signal: float = 0.0
    noise: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))


def tensor_quality(
    reference: CapturedModel, quantized: QuantizedModel, samples: Sequence[tuple[Any, ...]]
) -> Iterator[TensorQuality]:
    """Yields the quality of each quantized tensor, in the order of the network.

    Args:
        reference: the network in float, with the same identities.
        quantized: the network after quantization.
        samples: arguments at the captured batch size; kept few by the caller.
    """
    seen = {ref: _Seen() for ref in quantized.plan.activations}
    _note_ranges(reference, seen, samples)
    _note_noise(reference, quantized, seen, samples)
    graph = quantized.captured.graph
    for ref in graph.tensors:
        qparams = quantized.qparams.get(ref)
        if qparams is None:
            continue
        producer = graph.producers.get(ref)
        path, op = (producer.module_path, producer.op) if producer else (ref.module_path, "")
        if ref in seen:
            yield _activation(ref, path, op, qparams, seen[ref], len(samples))
        else:
            yield _weight(ref, path, qparams, quantized)


def _note_ranges(reference: CapturedModel, seen: dict[TensorRef, _Seen], samples: Sequence[tuple[Any, ...]]) -> None:
    def note(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in seen and values.numel():
            low, high = torch.aminmax(values)
            seen[ref].low, seen[ref].high = min(seen[ref].low, float(low)), max(seen[ref].high, float(high))
        return values

    state = reference.initial_state()
    for arguments in samples:
        reference.run(*arguments, state=state, transform=note)


def _note_noise(
    reference: CapturedModel,
    quantized: QuantizedModel,
    seen: dict[TensorRef, _Seen],
    samples: Sequence[tuple[Any, ...]],
) -> None:
    """Both networks run side by side, one sample at a time, so that one sample's activations are held."""
    expected: dict[TensorRef, torch.Tensor] = {}

    def keep(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in seen:
            expected[ref] = values
            if seen[ref].high > seen[ref].low:
                counts = torch.histc(values.float(), BINS, seen[ref].low, seen[ref].high)
                seen[ref].counts += counts.to(torch.int64)
        return values

    def compare(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        result = quantized.transform(ref, values)
        if ref in expected:
            truth = expected[ref].double()
            seen[ref].signal += float(truth.square().sum())
            seen[ref].noise += float((truth - result.double()).square().sum())
        return result

    states = reference.initial_state(), quantized.captured.initial_state()
    for arguments in samples:
        reference.run(*arguments, state=states[0], transform=keep)
        quantized.captured.run(*arguments, state=states[1], transform=compare, values=quantized.simulated_values)
        expected.clear()


def _activation(ref: TensorRef, path: str, op: str, qparams: QParams, seen: _Seen, samples: int) -> TensorQuality:
    low, high = qparams.range
    edges = torch.linspace(seen.low, seen.high, BINS + 1).tolist() if seen.high > seen.low else []
    return TensorQuality(
        tensor=str(ref),
        module_path=path,
        op=op,
        kind="activation",
        format=qparams.spec.format.name,
        sqnr=_figure(seen.signal, seen.noise, samples),
        low=float(low.min()),
        high=float(high.max()),
        counts=tuple(seen.counts.tolist()) if edges else (),
        edges=tuple(edges),
    )


def _weight(ref: TensorRef, path: str, qparams: QParams, quantized: QuantizedModel) -> TensorQuality:
    name = quantized.captured.value_refs[ref]
    truth, rounded = quantized.captured.values[name].double(), quantized.simulated_values[name].double()
    low, high = qparams.range
    kind: Literal["weight"] = "weight"
    return TensorQuality(
        tensor=str(ref),
        module_path=path,
        op="",
        kind=kind,
        format=qparams.spec.format.name,
        sqnr=_figure(float(truth.square().sum()), float((truth - rounded).square().sum()), None),
        low=float(low.min()),
        high=float(high.max()),
    )


def _figure(signal: float, noise: float, samples: int | None) -> Figure:
    return Figure(
        value=round(sqnr_db(signal, noise), 3), unit="dB", origin="measured", n=samples, source="simulation in PyTorch"
    )
