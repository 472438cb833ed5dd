"""Networks that do not export whole, quantized region by region and put back into the user's own Python.

Each region alone and all of them together, in ONNX Runtime (simulated where no file can be written of one), at each
network's own metric (an error of waypoints, pixels, joint angles or probabilities against the float network), beside
what the formats' errors are expected to do to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity_measures.region_metric import ALL, Metric, RegionEffect, region_effects
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.regions import find_regions
from bitwright.quant.swap_regions import Arguments, Forward, quantize_regions

ROW = "region_metric"
TARGET = "x86-vnni"
CALIBRATION, SCORED = 8, 4
MOST = 0.9  # of the multiply-accumulates


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What users of a network look at.

    Attributes:
        words: the metric's name and unit.
        metric: of the float result and another.
    """

    words: str
    metric: Metric


def _distance(place: Callable[[Any], torch.Tensor]) -> Metric:
    """Mean Euclidean distance of points along the last axis."""
    return lambda a, b: float((place(a) - place(b)).norm(dim=-1).mean())


def _difference(place: Callable[[Any], torch.Tensor]) -> Metric:
    """Mean magnitude of the difference."""
    return lambda a, b: float((place(a) - place(b)).abs().mean())


def _probability(place: Callable[[Any], torch.Tensor]) -> Metric:
    """Mean magnitude of the difference of class probabilities."""
    return lambda a, b: float((place(a).softmax(-1) - place(b).softmax(-1)).abs().mean())


NETWORKS: Mapping[str, Scored] = {
    "action_chunking": Scored(words="joint angles off by", metric=_difference(lambda r: r)),
    "conditional_planner": Scored(words="controls off by", metric=_difference(lambda r: r[0])),
    "deformable_detr": Scored(words="boxes off by, of the image", metric=_difference(lambda r: r[1].sigmoid())),
    "gru_tracker": Scored(words="track states off by", metric=_difference(lambda r: r[0])),
    "lstm_behaviour": Scored(words="waypoints off by", metric=_distance(lambda r: r[0])),
    "moe_planner": Scored(words="waypoints off by", metric=_distance(lambda r: r)),
    "motion_forecast": Scored(words="positions of all modes off by", metric=_distance(lambda r: r[0][..., :2])),
    "point_pillars": Scored(words="box parameters off by", metric=_difference(lambda r: r[1])),
    "raft_flow": Scored(words="end-point error, pixels", metric=_distance(lambda r: r.movedim(1, -1))),
    "traffic_light_rois": Scored(words="class probabilities off by", metric=_probability(lambda r: r[0])),
}


def run(bench: Bench) -> list[Record]:
    """Quantizes and scores every network."""
    torch.set_num_threads(1)
    scheme = load_target(TARGET).scheme()
    shares, effects, deployed = dict[str, float](), dict[str, list[RegionEffect]](), dict[str, int]()
    with Console().track("networks", len(NETWORKS)) as advance:
        for done, (name, scored) in enumerate(NETWORKS.items(), 1):
            network = driving.load(name)
            regions = find_regions(network.model, network.args)
            samples = _samples(network.args, CALIBRATION + SCORED)
            quantized = quantize_regions(network.model, regions.regions, scheme, samples[:CALIBRATION])
            shares[name] = regions.mac_share
            with tempfile.TemporaryDirectory() as folder:
                files = _in_runtime(quantized, Path(folder))
                deployed[name] = len(files)
                effects[name] = list(
                    region_effects(
                        network.model, regions.regions, quantized, samples[CALIBRATION:], scored.metric, deployed=files
                    )
                )
            advance(done, name)
    return _records(shares, effects, deployed)


def _in_runtime(quantized: Mapping[str, QuantizedModel], folder: Path) -> dict[str, Forward]:
    """Each region's own file in ONNX Runtime, called like its module."""
    found: dict[str, Forward] = {}
    for number, (name, region) in enumerate(quantized.items()):
        with suppress(InputError):  # an operator has no translation to ONNX
            link = OnnxRuntimeLink(export_onnx_qdq(region, folder / f"{number}.onnx"))
            found[name] = partial(_run, link, region.captured.out_spec)
    return found


def _run(link: OnnxRuntimeLink, spec: pytree.TreeSpec, *args: Any, **kwargs: Any) -> Any:
    results = link.run(Inputs(args=args, kwargs=kwargs)).outputs.values()
    return pytree.tree_unflatten([torch.from_numpy(each) for each in results], spec)


def _samples(args: tuple[Any, ...], number: int) -> list[Arguments]:
    """The example, and inputs like it: real values drawn anew around it, whole numbers and single ones as they are."""
    draw = torch.Generator().manual_seed(1)

    def anew(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() < 2:
            return tensor
        return tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=draw).to(tensor.dtype)

    return [(args, {}), *((pytree.tree_map_only(torch.Tensor, anew, args), {}) for _ in range(number - 1))]


def _records(
    shares: Mapping[str, float], effects: Mapping[str, list[RegionEffect]], deployed: Mapping[str, int]
) -> list[Record]:
    table = [_line(name, shares[name], found, deployed[name]) for name, found in effects.items()]

    def figure(name: str, value: float, unit: str, n: int, reach: Reach) -> Record:
        return record(f"{ROW}.{name}", area="parity", value=value, unit=unit, n=n, reach=reach, table=table)

    mostly = sum(share >= MOST for share in shares.values())
    whole = [found[-1] for found in effects.values()]
    alone = [each for found in effects.values() for each in found if each.region != ALL]
    return [
        figure(
            "mostly_in_regions", mostly, f"networks with ≥ {MOST:.0%} of MACs in regions", len(shares), Reach("≥", 8)
        ),
        figure("together", sum(not each.agrees for each in whole), "beyond their threshold", len(whole), Reach("=", 0)),
        figure("alone", sum(not each.agrees for each in alone), "regions beyond theirs", len(alone), Reach("=", 0)),
    ]


def _line(name: str, share: float, found: list[RegionEffect], deployed: int) -> dict[str, Any]:
    whole = found[-1]
    worst = max(found[:-1], key=lambda each: each.seen, default=whole)
    return {
        "network": name,
        "MACs in regions": f"{share:.1%}",
        "in ONNX Runtime": f"{deployed} of {max(1, len(found) - 1)} regions",
        "metric": NETWORKS[name].words,
        "expected": whole.expected,
        "allowed": whole.allowed,
        "seen": whole.seen,
        "the region that costs most": f"{worst.region}: {worst.seen:.3g}",
    }
