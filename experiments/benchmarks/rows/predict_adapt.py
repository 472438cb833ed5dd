"""The predictor of one thread of ONNX Runtime, adapted to another runtime, thread count and version by 20 networks.

The 20 are networks of the table's own draw, chosen before they are measured; the errors are those in float and int8 of
the networks of `predict_networks`; beside them what the predictor says without adapting (times one factor).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.latency.draw import drawn
from bitwright.experiments.benchmarks.latency.measured import (
    LONGEST_MS,
    SETTINGS,
    latencies,
    random_networks,
    reference_of,
)
from bitwright.experiments.benchmarks.latency.network_files import FORMATS, TARGET, network_files
from bitwright.experiments.benchmarks.latency.predicted import benchmark_table, predictor
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.kernels import Split, split
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.predict.adapt import adapt, telling
from bitwright.hw_constraints.predict.calibration import MeasuredNetwork
from bitwright.hw_constraints.predict.from_table import networks_of
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.target import load_target

ROW = "predict_adapt"
AREA = "hw_constraints"
SAMPLES = 20
_TO = {"openvino": "to OpenVINO", "onnxruntime-2t": "to 2 threads", "onnxruntime-1.23": "to ONNX Runtime 1.23"}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A network that is to be predicted.

    Attributes:
        name: of it.
        split: its kernels.
        us: measured.
    """

    name: str
    split: Split
    us: float


def run(bench: Bench) -> list[Record]:
    """Adapts to each setting that networks have been measured in; the others are left out."""
    by = predictor("onnxruntime")
    lines = [line for setting in _TO if latencies(setting) for line in _line(setting, by)]
    records = []
    for line in lines:
        name = str(line["setting"]).replace("-", "_").replace(".", "_")
        for figure, limit in (("median", 6), ("p90", 15)):
            records.append(
                record(
                    f"{ROW}.{name}.{figure}",
                    area=AREA,
                    value=float(line[f"{figure} error %"]),
                    unit=f"% {_TO[str(line['setting'])]}",
                    n=int(line["networks"]),
                    reach=Reach("≤", limit),
                    table=lines,
                )
            )
    return records


def _line(setting: str, by: LatencyPredictor) -> Iterator[dict[str, Any]]:
    candidates, truths = list(_candidates(setting)), list(_truths(setting))
    if len(candidates) < SAMPLES or not truths:
        return
    samples = [candidates[index] for index in telling(by, candidates, SAMPLES)]
    runtime = SETTINGS[setting].runtime
    adapted = adapt(by, samples, rules=known_rules(runtime), where=setting)
    scaled = _scaled(by, samples)
    errors, plain = _errors(adapted, truths), _errors(by, truths) + scaled
    covered = []
    for each in truths:
        found = adapted.network(each.split)
        covered.append(found.low <= each.us <= found.high)
    yield {
        "setting": setting,
        "samples": len(samples),
        "networks": len(truths),
        "median error %": 100 * float(np.median(np.abs(np.expm1(errors)))),
        "p90 error %": 100 * float(np.quantile(np.abs(np.expm1(errors)), 0.9)),
        "covered %": 100 * float(np.mean(covered)),
        "one factor, median error %": 100 * float(np.median(np.abs(np.expm1(plain)))),
        "one factor, p90 error %": 100 * float(np.quantile(np.abs(np.expm1(plain)), 0.9)),
    }


def _errors(by: LatencyPredictor, truths: Sequence[Truth]) -> np.ndarray:
    """Log(predicted / measured); the predictor takes networks that were split for another runtime as they are."""
    splits = [
        Split(runtime=by.runtime, kernels=t.split.kernels, inputs=t.split.inputs, outputs=t.split.outputs)
        for t in truths
    ]
    return np.log([by.network(each).us / truth.us for each, truth in zip(splits, truths, strict=True)])


def _scaled(by: LatencyPredictor, samples: Sequence[MeasuredNetwork]) -> float:
    """The logarithm of the factor that fits the samples best, for comparison."""
    from bitwright.hw_constraints.predict.calibration import network_terms

    predicted = [by.correction.latency(network_terms(by.models, each))[0] for each in samples]
    return float(np.median(np.log([each.us / us for each, us in zip(samples, predicted, strict=True)])))


def _candidates(setting: str) -> Iterator[MeasuredNetwork]:
    """Networks of the table's draw, measured in the setting."""
    if setting == "openvino":
        yield from networks_of(benchmark_table("openvino"))
        return
    known, scheme = latencies(setting), load_target(TARGET).scheme()
    reference_us = reference_of(known.values())
    for network in random_networks():
        for number_format in FORMATS:
            measured = known.get((network.name, number_format))
            if measured is None or measured.rejected:
                continue
            model = network.int8_file(scheme) if number_format == "int8" else network.float_file()
            parts = split(model, measured.runtime)
            kernels = tuple(placed.kernel for placed in parts.kernels)
            yield MeasuredNetwork(
                name=network.name,
                kernels=kernels,
                inputs=parts.inputs,
                outputs=parts.outputs,
                us=measured.us(reference_us),
            )


def _truths(setting: str) -> Iterator[Truth]:
    known = latencies(setting)
    in_table = setting == "openvino"  # where the samples come from; else from the same file as the networks
    reference_us = benchmark_table(setting).reference_us if in_table else reference_of(known.values())
    for variant in drawn():
        for number_format in FORMATS:
            measured = known.get((variant.name, number_format))
            if measured is None or measured.rejected or measured.us(reference_us) > 1e3 * LONGEST_MS:
                continue
            file = network_files(variant).files[number_format]
            yield Truth(name=variant.name, split=split(file, measured.runtime), us=measured.us(reference_us))
