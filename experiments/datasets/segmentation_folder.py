"""Pictures with a label for each pixel: `root/SPLIT/images/*` beside `root/SPLIT/labels/*.png` of the same names."""

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

Sample = tuple[Path, Path]
Side = Annotated[int, Field(ge=8)]


class Settings(FolderSettings):
    """`classes`: how many; `ignore_label`: the id no metric counts; `size`: (height, width), None keeps it."""

    classes: Annotated[int, Field(ge=2)]
    ignore_label: int | None = None
    size: tuple[Side, Side] | None = None
    train: str = "train"
    evaluate: str = "val"


def open_segmentation_folder(settings: Settings) -> Data:
    """Pairs pictures and labels; calibration pictures come from the training ones.

    Raises:
        InputError: a folder or a label file is missing.
    """
    root = Path(settings.root)
    training, scored = _pairs(root / settings.train), _pairs(root / settings.evaluate)
    splits = {
        Split.TRAIN: training,
        Split.CALIBRATE: [training[index] for index in chosen(len(training), settings)],
        Split.EVALUATE: scored,
    }
    notes: list[str] = []

    def loader(split: Split, batch: int, seed: int | None) -> SampleBatches:
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
        fingerprint=fingerprint([path for pair in training + scored for path in pair]),
        classes=settings.classes,
        ignore_label=settings.ignore_label,
        notes=notes,
    )


def _pairs(folder: Path) -> list[Sample]:
    if not (folder / "images").is_dir() or not (folder / "labels").is_dir():
        raise InputError(f"{folder}: expected the folders images/ and labels/ in it")
    images = pictures_in(folder / "images")
    if not images:
        raise InputError(f"{folder / 'images'}: no pictures found")
    pairs = [(path, folder / "labels" / f"{path.stem}.png") for path in images]
    for image, label in pairs:
        if not label.exists():
            raise InputError(f"{image}: its labels {label} do not exist")
    return pairs


def _read(sample: Sample, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [3, H, W] and int64 [H, W]; labels are scaled by nearest neighbour."""
    import numpy as np
    import torch
    from PIL import Image

    picture, label_file = sample
    image = open_picture(picture)
    try:
        with Image.open(label_file) as opened:
            labels = opened.copy()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{label_file}: not a readable picture ({error}); mend or remove it") from None
    if settings.size is not None:
        height, width = settings.size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        labels = labels.resize((width, height), Image.Resampling.NEAREST)
    ids = np.asarray(labels, dtype=np.int64)
    if ids.shape != (image.height, image.width):
        raise InputError(f"{label_file}: labels are {list(ids.shape)}, the picture is {[image.height, image.width]}")
    wrong = ids[(ids >= settings.classes) & (ids != settings.ignore_label)]
    if wrong.size:
        raise InputError(
            f"{label_file}: holds class {wrong[0]}; data.classes = {settings.classes} allows 0 to "
            f"{settings.classes - 1} and data.ignore_label = {settings.ignore_label}"
        )
    return normalized(image, settings), torch.from_numpy(ids)


DATASET = DataSetKind(settings=Settings, open=open_segmentation_folder)
