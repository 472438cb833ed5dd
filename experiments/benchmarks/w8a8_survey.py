"""One public network in int8: quantized by a target's scheme, exported, run and proven in ONNX Runtime, layer by layer.

`SQNR` here is that of values without their mean, `10 log10(Σ (x - mean x)² / Σ (x - x_q)²)`: a layer whose results
lie far from zero hides its noise behind its own mean.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bitwright.experiments.runtime_model import RuntimeModel, named_inputs
from bitwright.hw_constraints.proof import LayerProof, State, prove
from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import TensorRef
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.regions import Region, Regions
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.sqnr import EXACT_DB, sqnr_db

RUNTIME = "onnxruntime"
_REASONS = 3


@dataclass(kw_only=True)
class W8A8:
    """What became of one network.

    Attributes:
        int8: share of the run's multiply-accumulates that the runtime was proven to do in int8.
        layers: mean-removed SQNR of each layer's result behind all quantized layers before it, dB.
        result: mean-removed SQNR of what the runtime returns, dB; of the worst region.
        crashes: what raised anything else than a message to the user.
        refused: which regions could not be written, and why.
        in_float: why multiply-accumulates stay in float, with their shares.
    """

    int8: float = 0.0
    layers: dict[str, float] = field(default_factory=dict)
    result: float = EXACT_DB
    crashes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    in_float: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def survey_w8a8(regions: Regions, batches: list[Arguments], scheme: QuantScheme, folder: Path) -> W8A8:
    """Takes every region of a network through the whole chain.

    Args:
        regions: the network; a single region where it is captured whole.
        batches: calibration data of a whole network; regions take the arguments that they were recorded with.
        scheme: what is quantized, and how.
        folder: for the files.
    """
    found = W8A8()
    for number, region in enumerate(regions.regions):
        share = region.cost.macs / regions.total.macs if regions.total.macs else 1.0
        recorded = (*region.args, dict(region.kwargs)) if region.kwargs else region.args
        samples = batches if regions.is_whole else [recorded]
        try:
            _survey_region(found, region, share, samples, scheme, folder / f"{number}.onnx")
        except InputError as error:
            found.refused.append(f"{region.name or 'the network'}: {str(error).splitlines()[-1].strip()}")
            found.in_float["not exported"] += share
        except Exception:  # whatever it is, it is what this counts
            found.crashes.append(f"{region.name}: {' | '.join(traceback.format_exc().strip().splitlines()[-3:])}")
    return found


def _survey_region(
    found: W8A8, region: Region, share: float, samples: list[Arguments], scheme: QuantScheme, file: Path
) -> None:
    captured = region.captured
    quantized = quantize(captured, scheme, samples)
    export_onnx_qdq(quantized, file)
    example = captured.arguments(samples[0])
    found.layers |= layer_sqnr(fit_scheme(captured, scheme), quantized, example)
    expected = captured.run(*example)
    got = RuntimeModel(file, RUNTIME, expected)(*samples[0])
    pairs = zip(captured.outputs(expected), captured.outputs(got), strict=True)
    distances = [mean_removed_sqnr(want, have) for want, have in pairs if want.is_floating_point()]
    found.result = min([found.result, *distances])
    report = prove(file, RUNTIME, inputs=named_inputs(file, samples[0]), runs=1)
    total = sum(layer.macs for layer in report.layers)
    for layer in report.layers:
        part = share * layer.macs / total if total else 0.0
        if layer.state is State.INT8:
            found.int8 += part
        elif part:
            found.in_float[_why(layer, quantized)] += part
    if not total:
        found.int8 += share


def _why(layer: LayerProof, quantized: QuantizedModel) -> str:
    """The plan's reason where the layer was never meant to be in int8, else the proof's."""
    producer = quantized.captured.graph.producers.get(TensorRef.parse(layer.ref)) if layer.ref else None
    planned = quantized.plan.kept_float.get(producer.name) if producer else None
    if planned:
        return planned
    return f"{layer.op}: {layer.reason}" if layer.reason else f"{layer.op} in {layer.precision}"


def mean_removed_sqnr(expected: torch.Tensor, got: torch.Tensor) -> float:
    """`10 log10(Σ (x - mean x)² / Σ (x - x_q)²)` in dB."""
    truth = expected.double()
    signal = float((truth - truth.mean()).square().sum()) if truth.numel() else 0.0
    return sqnr_db(signal, float((truth - got.double()).square().sum()))


def layer_sqnr(prepared: CapturedModel, quantized: QuantizedModel, arguments: Arguments) -> dict[str, float]:
    """Mean-removed SQNR of the result of every convolution, linear layer and product, by its reference.

    Args:
        prepared: the network in float, of the same operators as the quantized one.
        quantized: the network.
        arguments: one call.
    """
    graph, chains = quantized.captured.graph, {chain[0]: chain[-1] for chain in quantized.plan.fused}
    ends = {chains.get(node.name, node.name) for node in graph.nodes if graph.is_layer(node)}
    results = {graph.by_name[name].outputs[0] for name in ends}
    truth: dict[TensorRef, torch.Tensor] = {}
    found: dict[str, float] = {}

    def keep(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in results:
            truth[ref] = values
        return values

    def compare(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        rounded = quantized.transform(ref, values)
        if ref in truth:
            found[str(ref)] = mean_removed_sqnr(truth[ref], rounded)
        return rounded

    prepared.run(*arguments, transform=keep)
    quantized.run(*arguments, transform=compare)
    return found


def described(reasons: Mapping[str, float]) -> str:
    """The largest shares that stay in float, in percent, with why."""
    ordered = sorted(reasons.items(), key=lambda item: -item[1])[:_REASONS]
    return "; ".join(f"{100 * share:.1f} %: {why}" for why, share in ordered)


def quantiles(layers: Mapping[str, float]) -> tuple[float, float, str]:
    """The median, the worst, and whose that is."""
    if not layers:
        return EXACT_DB, EXACT_DB, ""
    worst = min(layers, key=layers.__getitem__)
    return median(layers.values()), layers[worst], worst


def example_batches(args: tuple[Any, ...], count: int) -> list[Arguments]:
    """The arguments, and more of their shapes: standard normal where they are."""
    generator = torch.Generator().manual_seed(0)

    def another(value: Any) -> Any:
        return torch.randn(value.shape, generator=generator) if isinstance(value, torch.Tensor) else value

    return [args, *(tuple(another(value) for value in args) for _ in range(count - 1))]
