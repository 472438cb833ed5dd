"""Is what the search finds on road scenes better than MobileNetV2 with a decoder drawn by hand, at equal int8 latency?

The found network is chosen by validation pictures alone: the best of the search's front that is not slower than the
hand-made one of `AS_FAST_AS`. Then all are trained from scratch alike (`camvid_contest`), and the test pictures are
scored once. `BITWRIGHT_CAMVID_SECONDS` says when no further training begins; a run goes on where it was cut.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.camvid_contest import (
    EPOCHS,
    RATES,
    SEEDS,
    Contest,
    Contestant,
    mean_interval,
    reference_miou,
    small_copy,
    small_recipe,
)
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.recipe import ModelSection
from bitwright.experiments.search_workload import RecipeWorkload, varied_model
from bitwright.hw_constraints.measure import measure_in_subprocess
from bitwright.nas.space import Candidate
from bitwright.quant.errors import InputError

ROW = "search_camvid"
WIDTHS = (0.25, 0.35, 0.5, 0.75)
AS_FAST_AS = 0.5
PROCESSES = 5
_POINTS = 2.0
_SECONDS = 10.0  # of timing in a process
_RUNTIME = "onnxruntime"
_CODE_SEARCHED = ("nas.supernet", "nas.spaces.elastic_neck", "experiments.models.elastic_segmenter")


def run(bench: Bench) -> list[Record]:
    """Every training that is not kept yet, the search, then the figures.

    Raises:
        InputError: the time is up; what is done is kept.
    """
    folder = bench.cache / ROW
    pictures = small_copy(places.camvid_root(bench.data_root), folder / "pictures")
    seconds = float(os.environ.get("BITWRIGHT_CAMVID_SECONDS", "inf"))
    contest = Contest(pictures=pictures, folder=folder, until=time.monotonic() + seconds)
    made = {width: hand_made(width) for width in WIDTHS}
    contest.train(made[AS_FAST_AS])
    searched = _search(contest, made[AS_FAST_AS])
    found = Contestant(name="found", model=ModelSection(**searched["model"]))
    for each in (found, *made.values()):
        contest.train(each)
    return _records(contest, list(made.values()), found, searched)


def hand_made(width: float) -> Contestant:
    """MobileNetV2 at a width under LR-ASPP, which its authors' successor has for segmentation."""
    model = ModelSection(kind="mobilenet_v2_segmenter", width=width, decoder="lr_aspp", classes=11)
    return Contestant(name=f"lr_aspp_{width}", model=model)


def _search(contest: Contest, rival: Contestant) -> dict[str, Any]:
    """The network that the search finds as fast as the rival, as a recipe's model, and what finding it cost."""
    recipe = small_recipe(contest.pictures)
    assert recipe.search is not None
    identity = f"{recipe.model} {recipe.search} {recipe.seed} {rival}"

    def look() -> dict[str, Any]:
        from bitwright.experiments.search_supernet import trained_supernet
        from bitwright.experiments.stages.search import search_settings
        from bitwright.nas.search import search

        assert recipe.search is not None and recipe.search.supernet is not None
        workload, folder, began = RecipeWorkload(recipe), contest.folder / "search", time.process_time()
        shared = trained_supernet(workload, workload.space, recipe.search.supernet, folder / "supernet")
        print(f"supernet: {time.process_time() - began:.0f} s of CPU in this process", flush=True)
        outcome = search(workload.space, workload, search_settings(recipe), folder, inherited=shared)
        front = [each for each in outcome.front if each.same_as is None]  # twins have one file
        files = {each.key: folder / "artifacts" / f"{each.key}.onnx" for each in front}
        limit = contest.file(rival, lr=contest.rate(rival), seed=SEEDS[0])
        latency = _latencies({"rival": limit, **files}, processes=1)
        fast = [each for each in front if latency[each.key] <= latency["rival"]]
        if not fast:
            raise InputError(f"{ROW}: nothing of the front is as fast as {rival.name}, {latency['rival']:.3f} ms")
        chosen = max(fast, key=lambda each: each.figures["accuracy"])
        architecture = workload.space.architecture(Candidate(chosen.values))
        return {
            "model": varied_model(recipe.model, architecture).model_dump(exclude_none=True),
            "inherited int8 val mIoU": chosen.figures["accuracy"],
            "trials": len(outcome.results),
            "front": [[latency[each.key], each.figures["accuracy"]] for each in front],
        }

    return kept(contest.folder, "searched", identity, _CODE_SEARCHED, look)


def _latencies(files: Mapping[str, Path], *, processes: int) -> dict[str, float]:
    """Milliseconds of one thread, all files in the same rounds: medians over processes."""
    taken = {name: (path, _RUNTIME) for name, path in files.items()}
    runs = [measure_in_subprocess(taken, threads=1, max_seconds=_SECONDS) for _ in range(processes)]
    return {name: float(np.median([each.latency(name).median_us for each in runs])) / 1e3 for name in files}


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """A network's latency in ms and its test mIoU by seed, in percent."""

    latency_ms: float
    miou: Sequence[float]


def _records(
    contest: Contest, made: Sequence[Contestant], found: Contestant, searched: Mapping[str, Any]
) -> list[Record]:
    everyone = (*made, found)
    latency = _latencies(
        {each.name: contest.file(each, lr=contest.rate(each), seed=SEEDS[0]) for each in everyone},
        processes=PROCESSES,
    )
    scored = {each.name: _Scored(latency_ms=latency[each.name], miou=contest.test_miou(each)) for each in everyone}
    ours = scored[found.name]
    gains = []
    for index, miou in enumerate(ours.miou):
        front = {scored[each.name].latency_ms: scored[each.name].miou[index] for each in made}
        gains.append(miou - reference_miou(ours.latency_ms, front))
    table = [_line(contest, each, scored[each.name]) for each in everyone]
    table.append({"network": "gain by seed", "test mIoU %": " ".join(f"{each:+.2f}" for each in gains)})
    table.append({
        "network": f"search: {searched['trials']} candidates with weights of one supernet",
        "val mIoU %": f"{searched['inherited int8 val mIoU']:.2f} (found, inherited)",
        "model": str({key: value for key, value in searched["model"].items() if key not in ("kind", "classes")}),
    })  # fmt: skip
    return [
        record(
            f"{ROW}.gain",
            area="nas",
            value=float(np.mean(gains)),
            unit=f"points of mIoU at {ours.latency_ms:.3f} ms",
            n=len(SEEDS),
            reach=Reach("≥", _POINTS),
            spread=mean_interval(gains),
            table=table,
        )
    ]


def _line(contest: Contest, contestant: Contestant, scored: _Scored) -> dict[str, str]:
    lr = contest.rate(contestant)
    tried = (f"{contest.miou(contestant, lr=each, seed=SEEDS[0], split='val'):.2f} at {each:g}" for each in RATES)
    return {
        "network": contestant.name,
        "int8 ms": f"{scored.latency_ms:.3f}",
        "test mIoU %": f"{np.mean(scored.miou):.2f} ({' '.join(f'{each:.2f}' for each in scored.miou)})",
        "val mIoU %": ", ".join(tried),
        "training": f"{EPOCHS} epochs at {lr:g}",
    }
