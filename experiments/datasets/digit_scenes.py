"""Scenes of handwritten digits: real digits of scikit-learn's set in different sizes on one canvas, with their boxes.

Labels are those of `experiments.detection`. The digits that are scored stand in no scene that is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.datasets import Data, DataSetKind, Split, Task
from bitwright.experiments.datasets.digits import CALIBRATED, ORDER_SEED, TRAINED

if TYPE_CHECKING:
    import numpy as np
    import torch

CELL = 8  # pixels, the stride of the network
_SIDES = (16, 33)  # of a digit in pixels: smallest, and one above the largest
_DIGITS = 5  # tried in each scene
_SCORED = 300  # scenes


class Settings(BaseModel):
    """`size`: height and width of a scene in pixels, a multiple of 8; `scenes`: how many to train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: Annotated[int, Field(ge=48, le=512, multiple_of=CELL)] = 96
    scenes: Annotated[int, Field(ge=1)] = 1200


def open_digit_scenes(settings: Settings) -> Data:
    """Loads the digits; scenes are put together batch by batch, each decided by its number."""
    import numpy as np
    import sklearn
    from sklearn.datasets import load_digits

    from bitwright.experiments.detection import detection_distillation, detection_loss

    digits = load_digits()
    order = np.random.default_rng(ORDER_SEED).permutation(len(digits.target))
    images, labels = digits.images[order] / 16.0, digits.target[order]
    pools = {Split.TRAIN: (0, TRAINED), Split.CALIBRATE: (0, TRAINED), Split.EVALUATE: (TRAINED, len(labels))}
    counts = {Split.TRAIN: settings.scenes, Split.CALIBRATE: CALIBRATED, Split.EVALUATE: _SCORED}

    def loader(split: Split, batch: int, seed: int | None) -> _Scenes:
        low, high = pools[split]
        numbers = np.arange(counts[split])
        if seed is not None:
            numbers = np.random.default_rng(seed).permutation(numbers)
        return _Scenes(images[low:high], labels[low:high], numbers + low, batch, settings.size)

    return Data(
        loader=loader,
        splits=counts,
        fingerprint=f"scenes of scikit-learn {sklearn.__version__} load_digits, order {ORDER_SEED}",
        task=Task(loss=detection_loss, distil=detection_distillation),
    )


class _Scenes:
    """(float32 [N, 3, size, size] in [-1, 1], float32 [N, 5, size / 8, size / 8]), again and again."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray, batch: int, size: int) -> None:
        self.images, self.labels, self.numbers, self.batch, self.size = images, labels, numbers, batch, size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import torch

        for start in range(0, len(self.numbers), self.batch):
            scenes = [self._scene(int(number)) for number in self.numbers[start : start + self.batch]]
            pictures = torch.stack([picture for picture, _ in scenes])
            yield pictures.expand(-1, 3, -1, -1).contiguous(), torch.stack([labels for _, labels in scenes])

    def _scene(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Digits that do not touch, the largest that is left of each in front of a black ground."""
        import numpy as np
        import torch
        from torch.nn.functional import interpolate

        rng = np.random.default_rng((ORDER_SEED, number))
        canvas = torch.full((1, self.size, self.size), -1.0)
        labels = torch.zeros(5, self.size // CELL, self.size // CELL)
        taken = torch.zeros(self.size, self.size, dtype=torch.bool)
        for _ in range(_DIGITS):
            which, side = int(rng.integers(len(self.labels))), int(rng.integers(*_SIDES))
            top, left = (int(rng.integers(self.size - side + 1)) for _ in range(2))
            place = (slice(top, top + side), slice(left, left + side))
            if taken[place].any():
                continue
            taken[place] = True
            small = torch.from_numpy(self.images[which]).float()[None, None]
            large = interpolate(small, size=(side, side), mode="bilinear", align_corners=False)[0, 0]
            canvas[0, *place] = large * 2 - 1
            self._label(labels, large > 0.25, top, left, int(self.labels[which]))
        return canvas, labels

    def _label(self, labels: torch.Tensor, ink: torch.Tensor, top: int, left: int, digit: int) -> None:
        """The tight box around the ink, in the cell of its middle."""
        import torch

        rows, columns = (torch.nonzero(ink.any(axis)).flatten() for axis in (1, 0))
        low = torch.stack([columns[0] + left, rows[0] + top]) / CELL
        high = torch.stack([columns[-1] + 1 + left, rows[-1] + 1 + top]) / CELL
        middle = (low + high) / 2
        column, row = (int(each) for each in middle)
        labels[0, row, column] = digit + 1
        labels[1:3, row, column] = middle - torch.tensor([column, row])
        labels[3:5, row, column] = (high - low).log()


DATASET = DataSetKind(settings=Settings, open=open_digit_scenes)
