"""Predicted latencies and work of networks whose stages have formats of their own, from a few dozen architectures.

A chain of stages costs the sum of its parts (as in `tabular_costs`), where a part is a stage with what comes in, its
own decisions, and the formats before, in and behind it: between two formats codes are made or read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from bitwright.experiments.benchmarks.joint_networks import FORMATS, STAGES, TARGET, JointNetworks, network
from bitwright.hw_constraints.predict.from_table import load_predictor
from bitwright.hw_constraints.predict.planned_model import planned_model
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.target import load_target
from bitwright.nas.block_choices import DENSE
from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.space import Candidate, Value
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan

Formats = tuple[str, ...]
_SEED = 0


def part_names(values: Mapping[str, Value]) -> list[str]:
    """What each part's latency follows from: the stem's, the stages', the head's."""
    formats = [str(values[f"format_{stage}"]) for stage in range(STAGES)]
    around = [formats[0], *formats, formats[-1]]
    befores = ["stem", *(str(values[f"width_{stage}"]) for stage in range(STAGES))]
    stages = [_stage_part(stage, befores[stage], values, around[stage : stage + 3]) for stage in range(STAGES)]
    return [f"stem {formats[0]}", *stages, f"head {befores[-1]} {formats[-1]}"]


def _stage_part(stage: int, before: str, values: Mapping[str, Value], formats: Sequence[str]) -> str:
    own = (str(value) for name, value in sorted(values.items()) if name.endswith(f"_{stage}") and _counts(name))
    return " ".join([str(stage), before, *own, *formats])


def _counts(name: str) -> bool:
    return not name.startswith(("format", "sparsity"))  # no runtime here skips zeros


def covering(space: DeclaredSpace) -> Iterator[dict[str, Value]]:
    """Architectures, until each form of each stage has been there behind each width."""
    rng, none = np.random.default_rng(_SEED), ("",) * 3
    forms: list[list[dict[str, Value]]] = []
    for stage in range(STAGES):
        own = [each for each in space.parameters if each.name.endswith(f"_{stage}")]
        names = [each.name for each in own]
        forms.append(
            [dict(zip(names, form, strict=True)) for form in itertools.product(*(each.choices for each in own))]
        )
    befores = [["stem"], *(sorted({str(form[f"width_{stage}"]) for form in forms[stage]}) for stage in range(STAGES))]
    missing = {
        _stage_part(stage, before, form, none)
        for stage in range(STAGES)
        for before in befores[stage]
        for form in forms[stage]
    }
    while missing:
        values: dict[str, Value] = {}
        before = "stem"
        for stage in range(STAGES):
            mixed = [forms[stage][index] for index in rng.permutation(len(forms[stage]))]
            new = (form for form in mixed if _stage_part(stage, before, form, none) in missing)
            form = next(new, mixed[0])
            missing.discard(_stage_part(stage, before, form, none))
            values.update(form)
            before = str(form[f"width_{stage}"])
        yield values


def in_formats(architecture: Mapping[str, Value], formats: Formats) -> Candidate:
    """An architecture as a dense candidate with these formats of its stages."""
    given = {f"format_{stage}": each for stage, each in enumerate(formats)}
    dense = {f"sparsity_{stage}": DENSE for stage in range(STAGES)}
    own = {name: value for name, value in architecture.items() if _counts(name)}
    return Candidate({**own, **given, **dense})


def part_costs(networks: JointNetworks, latencies: Path) -> dict[str, tuple[float, float]]:
    """Milliseconds and multiply-accumulates of each part.

    Args:
        networks: of which space.
        latencies: the measured kernel table.

    Raises:
        InputError: there is no such table.
    """
    predictor, costs = load_predictor(latencies), dict[str, tuple[float, float]]()
    for architecture in covering(networks.architectures):
        model = network(architecture).eval()
        graph, target = fold_batch_norm(capture(model, networks.example)).graph, load_target(TARGET)
        macs = _macs_by_part(graph)
        for formats in itertools.product(FORMATS, repeat=STAGES):
            candidate = in_formats(architecture, formats)
            names = part_names(candidate.values)
            if all(name in costs for name in names):
                continue
            scheme = apply_block_formats(target.scheme(), target, networks.space.formats(candidate, model))
            planned = planned_model(graph, plan(graph, scheme))
            costs.update(zip(names, zip(_ms_by_part(planned, predictor), macs, strict=True), strict=True))
    return costs


def _macs_by_part(graph: Graph) -> list[float]:
    found = [0.0] * (STAGES + 2)
    for node in graph.nodes:
        found[_part(node.outputs[0].module_path)] += graph.macs(node)
    return found


def _part(path: str) -> int:
    """The place of a module's part: stem, stages, all that is behind them."""
    first, _, rest = path.partition(".")
    if first == "blocks":
        return 1 + int(rest.partition(".")[0])
    return 0 if first == "stem" else STAGES + 1


def _ms_by_part(planned: onnx.ModelProto, predictor: LatencyPredictor) -> list[float]:
    """Milliseconds of stem, stages and head; a kernel that belongs to no layer counts with the one before it."""
    predicted = predictor.network(predictor.split(planned))
    found, part = [0.0] * (STAGES + 2), 0
    each_kernel = predicted.overheads["kernels"] / len(predicted.layers)
    for layer in predicted.layers:
        if layer.layers:
            part = _part(layer.layers[0].partition("@")[0])
        found[part] += (layer.us + each_kernel) / 1e3
    found[0] += sum(us for name, us in predicted.overheads.items() if name != "kernels") / 1e3
    return found
