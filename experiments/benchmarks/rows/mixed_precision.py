"""MobileNetV2 part in int8, part in float, under a budget of latency: ours beside one format, greedy and ModelOpt.

The budget lies half and three quarters of the way from float's to int8's latency, both predicted by the frozen table of
kernels measured with ONNX Runtime. Everybody's choice of layers becomes a network by the same quantizer and is scored
as its ONNX file on ONNX Runtime, on pictures that no choice has seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import example_inputs, float_network
from bitwright.experiments.benchmarks.latency.predicted import predictor
from bitwright.experiments.benchmarks.metrics import agreement_percent, more_agreement, sqnr_db
from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.ours import images_of
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.predict.planned_model import planned_model
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.graph import Graph
from bitwright.quant.mixed_precision import FLOAT, Choice, Cost, LayerFormat, MixedNetworks, MixedSearch, Problem
from bitwright.quant.mixed_precision.greedy import first_that, greedy_path
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import QuantPlan
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

ROW = "mixed_precision"
NETWORK = "mobilenet_v2"
RUNTIME = "onnxruntime"
INT8 = "int8"
SHARES = (0.5, 0.75)
EFFECTIVE_BITS = (8.25, 8.5, 9.0, 9.5, 10.0, 11.0, 12.0)  # ModelOpt's budget; the best that keeps the latency counts
_CALIBRATE = 64
_SCORED_BY_MODELOPT = 16
_JUDGED = 8  # samples that ours decides by; a decision moves the SQNR by decibels, other samples by tenths


@dataclass(frozen=True, kw_only=True)
class Line:
    """One network under one budget.

    Attributes:
        who: chose it.
        share: of the way from float's latency to int8's.
        latency_ms: predicted.
        layers: groups in int8.
        logits: of the scored pictures; None where none keeps the budget.
    """

    who: str
    share: float
    latency_ms: float
    layers: int
    logits: npt.NDArray[np.float32]


def run(bench: Bench) -> list[Record]:
    """Chooses, exports and scores for both budgets."""
    search, reference = _search(bench), bench.float_logits(NETWORK)
    chosen, versions = modelopt_choices(bench, search.problem)
    lines = [line for share in SHARES for line in _lines(bench, search, chosen, share)]
    table = [_told(line, mine, reference) for mine, line in _beside_ours(lines)]
    common: dict[str, Any] = {"area": "quant", "n": len(reference), "peers": versions, "table": table}
    return [each for share in SHARES for each in _records(share, lines, reference, common)]


def _records(
    share: float, lines: Sequence[Line], reference: npt.NDArray[np.float32], common: Mapping[str, Any]
) -> Iterator[Record]:
    """Ours has to reach the best of the others, in both measures."""
    mine, *others = [line for line in lines if line.share == share]
    for figure, unit, measure in (("sqnr", "dB", sqnr_db), ("agreement", "%", agreement_percent)):
        found = measure(reference, mine.logits)
        best = max(measure(reference, line.logits).value for line in others)
        name, reach = f"{ROW}.at_{round(100 * share)}.{figure}", Reach("≥", best)
        yield record(name, value=found.value, unit=unit, spread=found.interval, reach=reach, **common)


def _search(bench: Bench) -> MixedSearch:
    reference = fold_batch_norm(capture(float_network(NETWORK, bench.home), example_inputs()))
    images = [image for image, _ in zip(images_of(bench.sample.calibration_file), range(_CALIBRATE), strict=False)]
    problem = Problem(
        graph=reference.graph,
        scheme=load_target("x86-vnni").scheme(),
        formats=(LayerFormat(name=INT8), FLOAT),
        allowed=(INT8, FLOAT.name),
    )

    def quantized(scheme: QuantScheme) -> Any:
        return quantize(reference, scheme, images)

    networks = MixedNetworks(problem, reference, quantized, [(image,) for image in images[:_JUDGED]])
    return MixedSearch(networks, [Cost(name="latency", unit="ms", of=_latency())])


def _latency() -> Any:
    by = predictor(RUNTIME)

    def latency_ms(graph: Graph, plan: QuantPlan) -> float:
        return by.network(by.split(planned_model(graph, plan))).us / 1e3

    return latency_ms


def _lines(
    bench: Bench, search: MixedSearch, modelopt: Mapping[float, Mapping[str, str]], share: float
) -> Iterator[Line]:
    """Ours first."""
    limit, problem = search.at_share("latency", share), search.problem
    made = functools.partial(_line, bench, search, share)
    mine: Choice = search.least_noise({"latency": limit})
    yield made("bitwright", mine.formats)
    yield made("uniform: all int8", problem.uniform(INT8))
    start, end = problem.uniform(FLOAT.name), problem.uniform(INT8)
    cost = search.cost_table("latency")
    path = greedy_path(start, end, search.noise.table, cost)
    greedy = first_that(path, lambda each: search.cost("latency", each) <= limit)
    if greedy is not None:
        yield made("greedy: least noise for a saved µs first", greedy)
    within = {bits: each for bits, each in modelopt.items() if search.cost("latency", each) <= limit}
    if within:  # the one with the least noise of those that keep the budget
        bits = min(within, key=lambda each: search.networks.noise(within[each]))
        yield made(f"modelopt auto_quantize, {bits:g} effective bits", within[bits])


def _line(bench: Bench, search: MixedSearch, share: float, who: str, formats: Mapping[str, str]) -> Line:
    file = bench.ours / ROW / "network.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    export_onnx_qdq(search.networks.of(formats), file)
    return Line(
        who=who,
        share=share,
        latency_ms=search.cost("latency", formats),
        layers=sum(name == INT8 for name in formats.values()),
        logits=onnx_logits(file, bench.sample.scored_file),
    )


def modelopt_choices(bench: Bench, problem: Problem) -> tuple[dict[float, dict[str, str]], dict[str, str]]:
    """ModelOpt's layers in int8 as assignments, by effective bits; and its versions.

    It decides about layers with weights alone: an addition or pool is in int8 where all layers around it are.
    """
    answer = ask(
        "modelopt",
        f"auto_quantize-{NETWORK}",
        {
            "network": NETWORK,
            "library": str(bench.home / LIBRARY),
            "calibration": str(bench.sample.calibration_file),
            "images": _SCORED_BY_MODELOPT,
            "effective_bits": EFFECTIVE_BITS,
        },
        home=bench.home,
        cache=bench.peers,
        worker="modelopt_formats",
    )
    found = {float(bits): _assignment(problem, set(layers)) for bits, layers in answer["layers"].items()}
    return found, answer["versions"]


def _assignment(problem: Problem, in_int8: set[str]) -> dict[str, str]:
    formats = {name: INT8 if name in in_int8 else FLOAT.name for name, group in problem.groups.items() if group.weights}
    decided = set(formats)
    for name in problem.groups.keys() - decided:
        around = {one if other == name else other for one, other in problem.edges if name in (one, other)} & decided
        formats[name] = INT8 if all(formats[each] == INT8 for each in around) else FLOAT.name
    return {name: formats[name] for name in problem.groups}


def _beside_ours(lines: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Each line with ours under the same budget, which comes first."""
    mine = {share: next(line for line in lines if line.share == share) for share in SHARES}
    return ((mine[line.share], line) for line in lines)


def _told(line: Line, mine: Line, reference: npt.NDArray[np.float32]) -> dict[str, object]:
    return {
        "budget": f"{100 * line.share:.0f} % of the way",
        "who": line.who,
        "predicted ms": f"{line.latency_ms:.3f}",
        "layers in int8": line.layers,
        "SQNR dB": f"{sqnr_db(reference, line.logits):.2f}",
        "agreement %": f"{agreement_percent(reference, line.logits):.2f}",
        "ours more, points, in pairs": ""
        if line is mine
        else f"{more_agreement(reference, mine.logits, line.logits):.2f}",
    }
