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
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL.Image import Image

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
    training, scored = labelled_pictures(root / settings.train), labelled_pictures(root / settings.evaluate)
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


def labelled_pictures(folder: Path) -> list[Sample]:
    """The pictures of a split in sorted order, each with the file of its labels.

    Raises:
        InputError: a folder or a label file is missing.
    """
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
    from PIL import Image as pillow

    picture, label_file = sample
    image, labels = open_picture(picture), open_labels(label_file)
    if settings.size is not None:
        height, width = settings.size
        image = image.resize((width, height), pillow.Resampling.BILINEAR)
        labels = labels.resize((width, height), pillow.Resampling.NEAREST)
    ids = np.asarray(labels, dtype=np.int64)
    if ids.shape != (image.height, image.width):
        raise InputError(f"{label_file}: labels are {list(ids.shape)}, the picture is {[image.height, image.width]}")
    check_ids(ids, label_file, classes=settings.classes, ignore_label=settings.ignore_label)
    return normalized(image, settings), torch.from_numpy(ids)


def open_labels(file: Path) -> Image:
    """Decodes a picture whose values are class ids.

    Raises:
        InputError: it cannot be read.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(file) as opened:
            return opened.copy()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{file}: not a readable picture ({error}); mend or remove it") from None


def check_ids(ids: npt.NDArray[np.integer], file: Path, *, classes: int, ignore_label: int | None) -> None:
    """Compares class ids with the classes that a recipe names.

    Raises:
        InputError: there are others.
    """
    wrong = ids[(ids >= classes) & (ids != ignore_label)]
    if wrong.size:
        raise InputError(
            f"{file}: holds class {wrong[0]}; data.classes = {classes} allows 0 to {classes - 1} and "
            f"data.ignore_label = {ignore_label}"
        )


DATASET = DataSetKind(settings=Settings, open=open_segmentation_folder)
