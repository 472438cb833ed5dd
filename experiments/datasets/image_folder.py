"""Classification pictures as `root/CLASS/*.jpg`; a class's index is its folder's place in sorted order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bitwright.experiments.datasets import Data, DataSetKind, Split
from bitwright.experiments.datasets.pictures import (
    FolderSettings,
    SampleBatches,
    chosen,
    fingerprint,
    normalized,
    open_picture,
    pictures_in,
    shuffled,
)
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

Sample = tuple[Path, int]


class Settings(FolderSettings):
    """`resize`: the short side before the centre crop of `size`; `train_root`: pictures to train on, if any."""

    size: Annotated[int, Field(ge=8)] = 224
    resize: Annotated[int, Field(ge=8)] = 256
    train_root: str | None = None


def open_image_folder(settings: Settings) -> Data:
    """Finds the pictures; those that calibrate are not scored.

    Raises:
        InputError: no class folders, no pictures, or too few.
    """
    samples = _samples(Path(settings.root))
    calibrating = set(chosen(len(samples), settings))
    splits = {
        Split.CALIBRATE: [samples[index] for index in sorted(calibrating)],
        Split.EVALUATE: [each for index, each in enumerate(samples) if index not in calibrating],
    }
    if not splits[Split.EVALUATE]:
        raise InputError(
            f"data.root = {settings.root!r} has {len(samples)} pictures and data.calibration = {settings.calibration} "
            "takes them all; leave some to score"
        )
    if settings.train_root is not None:
        splits[Split.TRAIN] = _samples(Path(settings.train_root))
    notes: list[str] = []

    def loader(split: Split, batch: int, seed: int | None) -> SampleBatches:
        if split not in splits:
            raise InputError("data kind 'image_folder' needs data.train_root to train on")
        return SampleBatches(
            shuffled(splits[split], seed),
            lambda sample: _read(sample, settings),
            batch,
            skip_unreadable=settings.on_unreadable == "skip",
            notes=notes,
        )

    return Data(
        loader=loader,
        splits={split: len(each) for split, each in splits.items()},
        fingerprint=fingerprint([path for each in splits.values() for path, _ in each]),
        classes=len({label for _, label in samples}),
        notes=notes,
    )


def _samples(root: Path) -> list[Sample]:
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    samples = [(path, label) for label, folder in enumerate(folders) for path in pictures_in(folder)]
    if not samples:
        raise InputError(f"{root}: no pictures found; expected {root}/CLASS/*.jpg (or .png, .bmp, .webp)")
    return samples


def _read(sample: Sample, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Short side to `resize`, centre crop of `size`: float32 [3, size, size] and its label."""
    import torch
    from PIL import Image

    path, label = sample
    image = open_picture(path)
    scale = settings.resize / min(image.size)
    width, height = (max(settings.size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - settings.size) // 2, (height - settings.size) // 2
    image = image.crop((left, top, left + settings.size, top + settings.size))
    return normalized(image, settings), torch.tensor(label)


DATASET = DataSetKind(settings=Settings, open=open_image_folder)
