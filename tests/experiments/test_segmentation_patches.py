"""Patches whose class is that of the pixel in their middle, against labels that say where that is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.open_data import open_data
from bitwright.experiments.recipe import DataSection
from bitwright.quant.errors import InputError

HEIGHT, WIDTH, IGNORED = 24, 32, 9


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """Pictures whose red is the column, green the row and blue the class; class 0 left, 1 right, 2 in one corner."""
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            labels[:, WIDTH // 2 :] = 1
            labels[8:10, 8:10] = 2
            labels[-6:] = IGNORED
            rows, columns = np.mgrid[:HEIGHT, :WIDTH]
            picture = np.stack([columns, rows + 64 * number, labels], axis=2).astype(np.uint8)
            for kind, array in (("images", picture), ("labels", labels)):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / split / kind / f"{number}.png")
    return tmp_path


def patches(root: Path, **settings: Any) -> Data:
    plain = {"classes": 3, "ignore_label": IGNORED, "size": 8, "step": 2, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return open_data(
        DataSection.model_validate({"kind": "segmentation_patches", "root": str(root), **plain, **settings})
    )


def everything(data: Data, split: Split, seed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(data.loader(split, 7, seed))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_the_class_is_that_of_the_pixel_in_the_middle(roads: Path) -> None:
    images, labels = everything(patches(roads), Split.EVALUATE)
    assert images.shape[1:] == (3, 8, 8) and labels.dtype == torch.int64
    assert torch.equal((images[:, 2, 4, 4] * 255).round().long(), labels)
    assert IGNORED not in labels


def test_patches_are_cut_out_whole(roads: Path) -> None:
    images, _ = everything(patches(roads), Split.EVALUATE)
    columns = (images[:, 0] * 255).round()
    assert torch.equal(columns, columns[:, :1, :1] + torch.arange(8.0).expand(8, 8))


def test_middles_are_all_those_that_fit(roads: Path) -> None:
    images, _ = everything(patches(roads, scored_per_class=10_000), Split.EVALUATE)
    middles = {(int(red), int(green)) for red, green in (images[:, :2, 4, 4] * 255).round().tolist()}
    assert {column for column, _ in middles} == set(range(4, WIDTH - 3, 2))
    assert {row % 64 for _, row in middles} == set(range(4, HEIGHT - 6, 2))


def test_each_class_has_at_most_so_many_and_pictures_share_them(roads: Path) -> None:
    data = patches(roads, per_class=6, scored_per_class=4)
    images, labels = everything(data, Split.TRAIN)
    assert Counter(labels.tolist()) == {0: 6, 1: 6, 2: 3}  # one middle of class 2 in each of three pictures
    assert {int(green) // 64 for green in (images[labels == 0, 1, 4, 4] * 255).round()} == {0, 1, 2}
    assert data.splits == {Split.TRAIN: 15, Split.CALIBRATE: 15, Split.EVALUATE: 10}
    assert patches(roads, per_class=6, calibration=5).splits[Split.CALIBRATE] == 5


def test_a_seed_shuffles_repeats_and_mirrors_what_is_trained_on(roads: Path) -> None:
    data = patches(roads)
    plain, first, again, other = (everything(data, Split.TRAIN, seed) for seed in (None, 1, 1, 2))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert Counter(first[1].tolist()) == Counter(plain[1].tolist())
    rising = first[0][:, 0, 0, 1] > first[0][:, 0, 0, 0]
    assert 0.3 < rising.float().mean() < 0.7
    scored = everything(data, Split.EVALUATE, 1)[0]
    assert (scored[:, 0, 0, 1] > scored[:, 0, 0, 0]).all()


def test_mistakes_are_named(roads: Path) -> None:
    with pytest.raises(InputError, match=r"train: no picture holds a patch of data.size = 64 pixels$"):
        patches(roads, size=64)
    with pytest.raises(InputError, match=r"0.png: holds class 2; data.classes = 2 allows 0 to 1 and"):
        patches(roads, classes=2)
    with pytest.raises(InputError, match=f"^{re.escape(str(roads))}/val: expected the folders images/ and labels/"):
        patches(roads, evaluate="val")
