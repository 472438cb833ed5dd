"""scikit-learn's 1,797 handwritten digits (8×8 grey levels), scaled up to RGB pictures: real input in a package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.datasets import Data, DataSetKind, Split

if TYPE_CHECKING:
    import torch

# A fixed order decides who is scored, so that every run and every candidate is scored on the same 497 digits.
ORDER_SEED = 20_240_501
TRAINED, CALIBRATED = 1300, 200  # the calibration digits are the first of the trained ones


class Settings(BaseModel):
    """`size`: height and width in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: Annotated[int, Field(ge=8, le=512)] = 64


def open_digits(settings: Settings) -> Data:
    """Loads the digits; pictures are scaled batch by batch, so that memory stays small."""
    import numpy as np
    import sklearn
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.from_numpy(np.random.default_rng(ORDER_SEED).permutation(len(digits.target)))
    images = torch.from_numpy(digits.images).float()[order].div(16.0)
    labels = torch.from_numpy(digits.target).long()[order]
    ranges = {
        Split.TRAIN: range(TRAINED),
        Split.CALIBRATE: range(CALIBRATED),
        Split.EVALUATE: range(TRAINED, len(labels)),
    }

    def loader(split: Split, batch: int, seed: int | None) -> _Batches:
        rows = torch.tensor(list(ranges[split]))
        if seed is not None:
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
        return _Batches(images, labels, rows, batch, settings.size)

    return Data(
        loader=loader,
        splits={split: len(rows) for split, rows in ranges.items()},
        fingerprint=f"scikit-learn {sklearn.__version__} load_digits, order {ORDER_SEED}",
        classes=10,
    )


class _Batches:
    """(float32 [N, 3, size, size] in [-1, 1], int64 [N]), again and again."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, batch: int, size: int) -> None:
        self.images, self.labels, self.rows, self.batch, self.size = images, labels, rows, batch, size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        from torch.nn.functional import interpolate

        for start in range(0, len(self.rows), self.batch):
            rows = self.rows[start : start + self.batch]
            small = self.images[rows].unsqueeze(1) * 2 - 1
            large = interpolate(small, size=(self.size, self.size), mode="bilinear", align_corners=False)
            yield large.expand(-1, 3, -1, -1).contiguous(), self.labels[rows]


DATASET = DataSetKind(settings=Settings, open=open_digits)
