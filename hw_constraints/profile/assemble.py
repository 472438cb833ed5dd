"""Puts a profile's layers together: proof, measured times, expected times, the user's modules, and remarks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bitwright.hw_constraints.cost.estimate import LayerEstimate
from bitwright.hw_constraints.profile.disagreement import Scene, remark
from bitwright.hw_constraints.profile.expected import Expected, Group, meet, spread
from bitwright.hw_constraints.profile.report import LayerTime
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph
from bitwright.hw_constraints.proof.report import LayerProof, State
from bitwright.quant.export.exporter import provenance_of
from bitwright.quant.graph import TensorRef

_WIDTH = {"int8": 1, "fp8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "float64": 8}  # bytes; others take 4


@dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """What is measured of one layer.

    Attributes:
        us: microseconds.
        low: lower end of the 95 % interval, where there is one.
        high: upper end.
        conversions_us: of conversions right before it.
    """

    us: float
    low: float | None = None
    high: float | None = None
    conversions_us: float = 0.0


def layer_keys(proof: LayerProof) -> frozenset[str]:
    """The names under which a layer may be known: its reference in our files, its node's name, its result's name."""
    return frozenset(filter(None, (reference_of(proof), proof.ref, proof.name, proof.output)))


def reference_of(proof: LayerProof) -> str:
    """The tensor of the user's model that a layer of our own files works for: `act@0.0.0/0`, too, is `act@0.0.0`'s.

    Empty in other files.
    """
    if proof.ref:
        return proof.ref
    base = proof.output.partition("/")[0]
    return base if "@" in base else ""


def sources_of(path: Path) -> dict[str, str]:
    """The user's line of each tensor, from our exporter's file beside; empty without it."""
    with suppress(OSError, ValueError, KeyError, AttributeError):
        found = json.loads(provenance_of(path).read_text(encoding="utf-8"))["sources"]
        return {str(reference): str(line) for reference, line in found.items()}
    return {}


def layers_of(
    graph: OnnxGraph,
    proofs: Sequence[LayerProof],
    figures: Mapping[str, LayerFigures],
    sources: Mapping[str, str],
) -> tuple[LayerTime, ...]:
    """Measured layers, in the file's order, each with those that its kernels took in.

    Args:
        graph: the file.
        proofs: of all its layers.
        figures: of those with kernels of their own, by name.
        sources: the user's lines, by reference.
    """
    members: dict[str, list[str]] = {}
    for proof in proofs:
        if proof.folded_into is not None:
            members.setdefault(proof.folded_into, []).append(proof.name)
    return tuple(
        LayerTime(
            name=proof.name,
            module=_module_of(reference_of(proof)),
            source=sources.get(reference_of(proof), ""),
            members=tuple(members.get(proof.name, ())),
            op=proof.op,
            state=proof.state,
            kernel=proof.kernel,
            us=figures[proof.name].us,
            low=figures[proof.name].low,
            high=figures[proof.name].high,
            macs=proof.macs,
            bytes=_bytes_of(graph, proof),
            conversions_us=figures[proof.name].conversions_us,
        )
        for proof in proofs
        if proof.folded_into is None and proof.name in figures
    )


def _module_of(reference: str) -> str:
    with suppress(ValueError):  # another file's value that only looks like one
        return TensorRef.parse(reference).module_path if reference else ""
    return ""


def _bytes_of(graph: OnnxGraph, proof: LayerProof) -> int:
    """What a layer reads and writes, each tensor once, at the width that it ran in."""
    node = graph.nodes[graph.producer[proof.output]]
    width = _WIDTH.get("int8" if proof.state is State.INT8 else proof.precision, 4)
    shapes = [graph.shape(value) for value in (*filter(None, node.input), proof.output)]
    return width * sum(math.prod(dim or 1 for dim in shape) for shape in shapes if shape is not None)


def with_expected(
    layers: Sequence[LayerTime],
    proofs: Sequence[LayerProof],
    expected: Expected,
    scene: Scene,
) -> tuple[LayerTime, ...]:
    """The layers with expected times beside them, and remarks where both are far apart.

    Args:
        layers: as measured.
        proofs: of all layers of the file.
        expected: modelled or predicted times.
        scene: of the whole profile.
    """
    by_name = {proof.name: proof for proof in proofs}
    keys = [
        frozenset(key for name in (layer.name, *layer.members) for key in layer_keys(by_name[name])) for layer in layers
    ]
    groups = meet(keys, expected.ops)
    times = spread(groups, {position: layer.us for position, layer in enumerate(layers)})
    changed = list(layers)
    for group in groups:
        estimates = tuple(op.estimate for op in group.ops if op.estimate is not None)
        for position in group.measured:
            if position in times:
                changed[position] = _beside(layers[position], times[position], estimates, by_name, scene)
    return tuple(_only_group_remarks(changed, groups))


def _beside(
    layer: LayerTime,
    us: float,
    estimates: tuple[LayerEstimate, ...],
    proofs: Mapping[str, LayerProof],
    scene: Scene,
) -> LayerTime:
    reason = proofs[layer.name].reason
    text = remark(layer, us, estimates, scene, "" if reason is None else str(reason))
    text = "; ".join(filter(None, (layer.remark, text)))
    if scene.what == "predicted":
        return replace(layer, predicted_us=us, remark=text)
    return replace(layer, modelled_us=us, remark=text)


def _only_group_remarks(layers: list[LayerTime], groups: Iterable[Group]) -> list[LayerTime]:
    """Within a group of several measured layers times are split by measure: one remark, at the longest, says it all."""
    for group in groups:
        if len(group.measured) > 1:
            longest = max(group.measured, key=lambda position: layers[position].us)
            for position in group.measured:
                if position != longest and layers[position].remark:
                    layers[position] = replace(layers[position], remark=f"with {layers[longest].name}")
    return layers


def scene_of(
    layers: Sequence[LayerTime],
    *,
    scale: float,
    start_us: float,
    copy_gb_s: float | None,
    what: str,
) -> Scene:
    """What remarks on single layers need to know of the whole."""
    best: dict[State, float] = {}
    for layer in layers:
        if layer.macs and layer.us:
            best[layer.state] = max(best.get(layer.state, 0.0), layer.macs / layer.us)
    return Scene(scale=scale, start_us=start_us, best_rate=best, copy_gb_s=copy_gb_s, what=what)
