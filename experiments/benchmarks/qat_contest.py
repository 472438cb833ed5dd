"""Quantization-aware training by everybody under one budget: the same data, loop, loss, epochs and number of trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.asking import WORKERS, ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, OURS
from bitwright.experiments.benchmarks.places import camvid_root, checkout
from bitwright.experiments.datasets import Split
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.training import labels_of
from bitwright.experiments.workbench import Workbench

# Ours last: its answers are kept only until our code changes.
SIDES = ("brevitas", "torchao", "modelopt", OURS)
# The rates that every side tries on each network in one scheme; chosen on the validation samples alone.
RATES = (1e-4, 3e-4, 1e-3)
TUNED = "W4A8"
_BATCH = 64


@dataclass(frozen=True)
class Subject:
    """A network and its data.

    Attributes:
        name: in tables.
        recipe: trains it in float.
        overrides: as on the command line.
        epochs: of quantization-aware training.
        batch: samples a step.
        validation: samples at the end of the training ones that no training sees; 0 where the data have a split.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...]
    epochs: int
    batch: int
    validation: int


SUBJECTS = (
    Subject("mobilenet on digits", "digits", ("data.size=32",), epochs=4, batch=64, validation=260),
    Subject("resnet on digits", "qat_classification", (), epochs=4, batch=64, validation=260),
    Subject("segmenter on CamVid", "camvid_segmentation", (), epochs=2, batch=8, validation=0),
)
SCHEMES = {"W4A4": (4, 4), "W4A8": (4, 8), "W8A8": (8, 8)}


class Contest:
    """All trainings on one network, kept between runs one by one."""

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self.bench, self.subject = bench, subject
        self.trained = bench.trained(subject.recipe, *subject.overrides)
        self.data = self.trained.folder / "qat"
        if not (self.data / "test-labels.npy").exists():
            self._keep_data()

    def rate(self, side: str) -> float:
        """The rate of the best validation score of seed 0 in `TUNED`; of equal ones the smallest."""
        scores = {lr: self.score(side, TUNED, lr=lr, seed=0, part="validation") for lr in RATES}
        return max(RATES, key=lambda lr: (scores[lr], -lr))

    def test(self, side: str, scheme: str, seed: int) -> float:
        """The score on the test samples with the rate chosen on the validation ones."""
        return self.score(side, scheme, lr=self.rate(side), seed=seed, part="test")

    def score(self, side: str, scheme: str, lr: float, seed: int, part: str) -> float:
        """One training's score, in percent."""
        return float(self.answer(side, scheme, lr=lr, seed=seed, part=part)["score"])

    def answer(self, side: str, scheme: str, *, lr: float, seed: int, part: str) -> dict[str, Any]:
        """See `qat_exchange.serve`."""
        weights, activations = SCHEMES[scheme]
        recipe = load_recipe(self.subject.recipe)
        request = {
            "network": str(self.trained.description),
            "library": str(self.bench.home / LIBRARY),
            "data": str(self.data),
            "part": part,
            "weight_bits": weights,
            "activation_bits": activations,
            "epochs": self.subject.epochs,
            "batch": self.subject.batch,
            "lr": lr,
            "seed": seed,
            "classes": recipe.data.settings.get("classes", 10),
            "ignore": recipe.data.settings.get("ignore_label", -1),
            "metric": recipe.evaluate.metric,
        }
        own = sorted((checkout() / "qat").rglob("*.py")) if side == OURS else []
        return ask(
            side,
            f"qat-{scheme}",
            request,
            home=self.bench.home,
            cache=self.bench.cache / "qat_contest",
            files=[WORKERS / "qat_exchange.py", *own],
            worker=f"{side}_qat",
        )

    def float_score(self) -> float:
        """The float network's on the test samples, in percent, by the workers' own metric."""
        recipe = load_recipe(self.subject.recipe)
        classes = recipe.data.settings.get("classes", 10)
        ignored = recipe.data.settings.get("ignore_label", -1)
        decided, labels = self.trained.float_logits.argmax(1), self.trained.labels
        counted = labels != ignored
        if recipe.evaluate.metric == "top1":
            return 100.0 * float((decided == labels)[counted].mean())
        pairs = labels[counted] * classes + decided[counted]
        table = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(float)
        union = table.sum(0) + table.sum(1) - table.diagonal()
        return 100.0 * float((table.diagonal() / np.maximum(union, 1))[union > 0].mean())

    def _keep_data(self) -> None:
        """The training samples in the data's order, those that choose, and those that are scored."""
        self.data.mkdir(parents=True, exist_ok=True)
        images, labels = self._samples(Split.TRAIN)
        held = self.subject.validation
        cut = len(images) - held
        validation = (images[cut:], labels[cut:]) if held else self._samples(Split.EVALUATE, "data.evaluate=val")
        parts = {"train": (images[:cut], labels[:cut]), "validation": validation}
        parts["test"] = (np.load(self.trained.scored), self.trained.labels)
        for name, (pictures, truth) in parts.items():
            np.save(self.data / f"{name}-images.npy", pictures)
            np.save(self.data / f"{name}-labels.npy", truth)

    def _samples(self, split: Split, *more: str) -> tuple[Any, Any]:
        has_root = "root" in load_recipe(self.subject.recipe).data.settings
        root = [f"data.root={camvid_root(self.bench.data_root)}"] if has_root else []
        bench = Workbench(load_recipe(self.subject.recipe, (*root, *self.subject.overrides, *more)))
        batches = list(bench.data.loader(split, _BATCH, None))
        images = torch.cat([batch[0] for batch in batches]).numpy()
        return images, torch.cat([labels_of(batch) for batch in batches]).numpy()
