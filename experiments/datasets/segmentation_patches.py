"""Patches out of pictures with a label for each pixel: which class has the pixel in the middle?

The folders are those of `segmentation_folder`. A network of the size of CIFAR-10's finds real pictures in them, as many
of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bitwright.experiments.datasets import Data, DataSetKind, Split
from bitwright.experiments.datasets.pictures import (
    FolderSettings,
    SampleBatches,
    chosen,
    fingerprint,
    normalized,
    open_picture,
)
from bitwright.experiments.datasets.segmentation_folder import check_ids, labelled_pictures, open_labels
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Patches = npt.NDArray[np.int32]  # [patches, 4]: picture, row and column of the middle, class


class Settings(FolderSettings):
    """Which patches.

    Attributes:
        classes: how many.
        ignore_label: the id whose pixels are nobody's middle.
        size: height and width of a patch, in pixels.
        step: between the middles of neighbouring patches, in pixels.
        per_class: of a class with more patches than this to train on, so many are taken, evenly spread.
        scored_per_class: the same for those that are scored.
        train: the folder to train on and calibrate with.
        evaluate: the folder that is scored.
    """

    classes: Annotated[int, Field(ge=2)]
    ignore_label: int | None = None
    size: Annotated[int, Field(ge=8)] = 32
    step: Annotated[int, Field(ge=1)] = 4
    per_class: Annotated[int, Field(ge=1)] = 1000
    scored_per_class: Annotated[int, Field(ge=1)] = 200
    train: str = "train"
    evaluate: str = "test"


def open_segmentation_patches(settings: Settings) -> Data:
    """Finds the patches; those that calibrate are spread over the training ones.

    Raises:
        InputError: a folder or a label file is missing, or no patch fits into a picture.
    """
    root = Path(settings.root)
    training = _Folder(root / settings.train, settings, settings.per_class)
    scored = _Folder(root / settings.evaluate, settings, settings.scored_per_class)
    calibrating = training.patches[chosen(len(training.patches), settings)]
    splits = {
        Split.TRAIN: (training, training.patches),
        Split.CALIBRATE: (training, calibrating),
        Split.EVALUATE: (scored, scored.patches),
    }

    def loader(split: Split, batch: int, seed: int | None) -> SampleBatches:
        folder, patches = splits[split]
        mirrored = split is Split.TRAIN and seed is not None
        samples = [(folder.pairs[patch[0]][0], patch) for patch in _drawn(patches, seed, mirrored)]
        return SampleBatches(samples, folder.read, batch, skip_unreadable=False, notes=[])

    return Data(
        loader=loader,
        splits={split: len(patches) for split, (_, patches) in splits.items()},
        fingerprint=fingerprint([path for folder in (training, scored) for pair in folder.pairs for path in pair]),
        classes=settings.classes,
    )


class _Folder:
    """One split's pictures, decoded once and kept: 47 MB for CamVid's 367."""

    def __init__(self, folder: Path, settings: Settings, per_class: int) -> None:
        self.folder, self.settings, self.per_class = folder, settings, per_class
        self.pairs = labelled_pictures(folder)

    @cached_property
    def pictures(self) -> list[torch.Tensor]:
        """float32 [3, H, W], normalised."""
        return [normalized(open_picture(picture), self.settings) for picture, _ in self.pairs]

    @cached_property
    def patches(self) -> Patches:
        """At most `per_class` of each class, in the order of the pictures."""
        import numpy as np

        found = np.concatenate([self._of_picture(index) for index in range(len(self.pairs))])
        if not len(found):
            raise InputError(f"{self.folder}: no picture holds a patch of data.size = {self.settings.size} pixels")
        kept = [_spread(np.flatnonzero(found[:, 3] == each), self.per_class) for each in np.unique(found[:, 3])]
        patches: Patches = found[np.sort(np.concatenate(kept))]
        return patches

    def _of_picture(self, index: int) -> Patches:
        import numpy as np

        asked, file = self.settings, self.pairs[index][1]
        ids = np.asarray(open_labels(file), dtype=np.int32)
        check_ids(ids, file, classes=asked.classes, ignore_label=asked.ignore_label)
        half = asked.size // 2
        ends = [side - (asked.size - half) + 1 for side in ids.shape]
        rows, columns = np.meshgrid(*(np.arange(half, end, asked.step) for end in ends), indexing="ij")
        classes = ids[rows, columns]
        wanted = classes != (-1 if asked.ignore_label is None else asked.ignore_label)
        parts = (rows[wanted], columns[wanted], classes[wanted])
        return np.stack([np.full_like(parts[0], index), *parts], axis=1).astype(np.int32)

    def read(self, sample: tuple[Path, Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [3, size, size] and its class; the fifth number says whether it is mirrored."""
        import torch

        picture, row, column, label, mirrored = sample[1]
        size, half = self.settings.size, self.settings.size // 2
        cut = self.pictures[picture][:, row - half : row - half + size, column - half : column - half + size]
        return (cut.flip(2) if mirrored else cut), torch.tensor(label)


def _spread(places: Any, most: int) -> Any:
    """At most so many of the places, evenly."""
    return places if len(places) <= most else places[[index * len(places) // most for index in range(most)]]


def _drawn(patches: Patches, seed: int | None, mirrored: bool) -> list[list[int]]:
    """The patches in an order that the seed decides, every other one mirrored by chance where that is asked for."""
    import numpy as np

    flips = np.zeros(len(patches), dtype=np.int32)
    if seed is not None:
        generator = np.random.default_rng(seed)
        patches = patches[generator.permutation(len(patches))]
        flips = generator.integers(0, 2, len(patches), dtype=np.int32) if mirrored else flips
    rows: list[list[int]] = np.column_stack([patches, flips]).tolist()
    return rows


DATASET = DataSetKind(settings=Settings, open=open_segmentation_patches)
