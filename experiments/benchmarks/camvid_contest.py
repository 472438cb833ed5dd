"""Segmentation networks on small road scenes, all trained, tuned, quantized and scored alike, whoever drew them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow
from safetensors.torch import load_file, save_file

from bitwright.experiments.benchmarks.kept import digest, kept
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import ModelSection, Recipe
from bitwright.experiments.search_workload import RecipeWorkload
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize

RECIPE = "camvid_search"
SIZE = (96, 128)  # height, width
EPOCHS, BATCH = 12, 8
RATES = (1e-2, 2e-2)
SEEDS = (0, 1, 2)
VAL, TEST = "val", "test"
# What decides a training and is no setting: the loop, the pictures, the layers of both sides.
_CODE = (
    "experiments.training",
    "experiments.datasets.segmentation_folder",
    "experiments.models.elastic_layers",
    "experiments.models.elastic_necks",
    "experiments.models.inverted_residuals",
    "experiments.models.mobilenet_v2_decoders",
    "experiments.models.mobilenet_v2_layers",
)
_CODE_SCORED = (*_CODE, "quant.ptq", "quant.plan", "quant.observers", "quant.export.onnx_qdq")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A network: what it is called, and how a recipe says it."""

    name: str
    model: ModelSection


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Trains contestants and keeps everything, so that a run goes on where it was cut.

    Attributes:
        pictures: road scenes at `SIZE` (`small_copy`).
        folder: where weights, files and scores are kept.
        until: when no further training may begin, in `time.monotonic` seconds.
    """

    pictures: Path
    folder: Path
    until: float

    def workload(self, model: ModelSection, *, lr: float, seed: int, split: str = VAL) -> RecipeWorkload:
        """The shipped recipe with this network and training, scored on this split."""
        train = [f"search.train={{epochs: {EPOCHS}, batch: {BATCH}, lr: {lr!r}}}", f"seed={seed}"]
        recipe = small_recipe(self.pictures, *train, f"data.evaluate={split}")
        return RecipeWorkload(recipe.model_copy(update={"model": model}))

    def rate(self, contestant: Contestant) -> float:
        """The learning rate whose int8 file scores best on the validation pictures, with the first seed."""
        return max(RATES, key=lambda lr: self.miou(contestant, lr=lr, seed=SEEDS[0], split=VAL))

    def train(self, contestant: Contestant) -> None:
        """Tunes the rate and trains with all seeds, as far as that is not kept.

        Raises:
            InputError: the time is up.
        """
        lr = self.rate(contestant)
        for seed in SEEDS:
            self.file(contestant, lr=lr, seed=seed)

    def test_miou(self, contestant: Contestant) -> list[float]:
        """Of the int8 files of all seeds on the test pictures, at the learning rate that validation chose."""
        lr = self.rate(contestant)
        return [self.miou(contestant, lr=lr, seed=seed, split=TEST) for seed in SEEDS]

    def miou(self, contestant: Contestant, *, lr: float, seed: int, split: str) -> float:
        """Mean intersection over union of the int8 file, in percent."""
        name = f"{self._name(contestant, lr=lr, seed=seed)}-{split}"

        def look() -> dict[str, Any]:
            workload = self.workload(contestant.model, lr=lr, seed=seed, split=split)
            return {"miou": workload.accuracy(workload.build({}), self.file(contestant, lr=lr, seed=seed)).value}

        return float(kept(self.folder / "scores", name, str(self.pictures), _CODE_SCORED, look)["miou"])

    def file(self, contestant: Contestant, *, lr: float, seed: int) -> Path:
        """The trained network in int8, as the recipe's target runs it."""
        path = self.folder / "files" / f"{self._name(contestant, lr=lr, seed=seed)}-{digest('', _CODE_SCORED)}.onnx"
        if not path.exists():
            workload = self.workload(contestant.model, lr=lr, seed=seed)
            model = workload.build({})
            model.load_state_dict(load_file(self.weights(contestant, lr=lr, seed=seed)))
            captured = capture(model, workload.example(model))
            path.parent.mkdir(parents=True, exist_ok=True)
            export_onnx_qdq(quantize(captured, workload.scheme, workload.calibration(model)), path)
        return path

    def weights(self, contestant: Contestant, *, lr: float, seed: int) -> Path:
        """Trained from scratch as every other.

        Raises:
            InputError: the time is up; what is trained is kept.
        """
        name = self._name(contestant, lr=lr, seed=seed)
        path = self.folder / "weights" / f"{name}.safetensors"
        if not path.exists():
            if time.monotonic() > self.until:
                raise InputError(f"the time is up before the training {name}; run it again")
            workload = self.workload(contestant.model, lr=lr, seed=seed)
            model, began = workload.build({}), time.process_time()
            workload.train(model)
            print(f"{name}: {time.process_time() - began:.0f} s of CPU", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}, path)
        return path

    def _name(self, contestant: Contestant, *, lr: float, seed: int) -> str:
        identity = f"{contestant.model.model_dump()} {EPOCHS} {BATCH} {lr} {seed} {SIZE}"
        return f"{contestant.name}-{lr:g}-{seed}-{digest(identity, _CODE)}"


def small_recipe(pictures: Path, *overrides: str) -> Recipe:
    """The shipped search on the small pictures, all blocks in int8."""
    return load_recipe(RECIPE, [f"data.root={pictures}", "data.size=null", "search.space.formats=[int8]", *overrides])


def small_copy(root: Path, folder: Path) -> Path:
    """The pictures and labels at `SIZE`, scaled once as `data.size` scales them every time."""
    for split in ("train", VAL, TEST):
        for part, how in (("images", pillow.Resampling.BILINEAR), ("labels", pillow.Resampling.NEAREST)):
            (folder / split / part).mkdir(parents=True, exist_ok=True)
            for file in sorted((root / split / part).iterdir()):
                scaled = folder / split / part / f"{file.stem}.png"
                if not scaled.exists():
                    with pillow.open(file) as picture:
                        whole = picture.convert("RGB") if part == "images" else picture
                        whole.resize(SIZE[::-1], how).save(scaled)
    return folder


def reference_miou(latency_ms: float, front: Mapping[float, float]) -> float:
    """What a family reaches at a latency: on the straight line between any two of its members, whichever is best.

    A member that is faster counts as it is, and where all are slower, the fastest does: both favour the family.

    Args:
        latency_ms: where.
        front: mIoU by latency in ms.
    """
    points = sorted(front.items())
    reached = [miou for latency, miou in points if latency <= latency_ms] or [points[0][1]]
    for low, first in points:
        for high, second in points:
            if low < latency_ms < high:
                reached.append(first + (second - first) * (latency_ms - low) / (high - low))
    return max(reached)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean."""
    from scipy.stats import t

    spread = np.std(values, ddof=1) / np.sqrt(len(values)) * t.ppf(0.975, len(values) - 1)
    return float(np.mean(values) - spread), float(np.mean(values) + spread)
