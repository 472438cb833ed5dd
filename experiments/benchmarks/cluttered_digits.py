"""Digits among pieces of other digits: what a small network can hold limits its accuracy, which plain digits do not.

After cluttered MNIST (Mnih et al. 2014, arXiv:1406.6247, section 4.1), with the 1,797 digits that scikit-learn carries.
Those that are scored stand in no picture that is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.datasets.digits import ORDER_SEED, TRAINED

SIZE = 32  # pixels of a picture
_SIDES = (14, 21)  # of a digit in pixels: smallest, and one above the largest
_PIECES, _PIECE = 6, 8  # how many, and their side in pixels
_PICTURES = 2  # of each digit that is scored
_CALIBRATED = 64

Floats = npt.NDArray[np.float32]


def open_cluttered_digits() -> Data:
    """Pictures put together anew for each pass over the training digits, always the same for the same seed."""
    import sklearn
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(ORDER_SEED).permutation(len(digits.target))
    images, labels = (digits.images[order] / 16.0).astype(np.float32), digits.target[order].astype(np.int64)
    trained = _Digits(images[:TRAINED], labels[:TRAINED])
    scored = _Digits(images[TRAINED:], labels[TRAINED:])
    counts = {Split.TRAIN: TRAINED, Split.CALIBRATE: _CALIBRATED, Split.EVALUATE: _PICTURES * len(scored.labels)}

    def loader(split: Split, batch: int, seed: int | None) -> _Batches:
        numbers = np.arange(counts[split])
        if seed is not None:
            numbers = np.random.default_rng(seed).permutation(numbers)
        return _Batches(scored if split is Split.EVALUATE else trained, numbers, batch, 0 if seed is None else seed + 1)

    return Data(
        loader=loader,
        splits=counts,
        fingerprint=f"clutter of scikit-learn {sklearn.__version__} load_digits, order {ORDER_SEED}",
        classes=10,
    )


class _Digits:
    def __init__(self, images: Floats, labels: npt.NDArray[np.int64]) -> None:
        self.labels = labels
        self._images = images

    def picture(self, number: int, seed: int) -> Floats:
        """[SIZE, SIZE] in [-1, 1]: one digit whole, pieces of others, the brightest of each pixel."""
        rng = np.random.default_rng((ORDER_SEED, seed, number))
        canvas = np.zeros((SIZE, SIZE), np.float32)
        self._put(canvas, self._drawn(number, rng), rng)
        for _ in range(_PIECES):
            other = self._drawn(int(rng.integers(len(self.labels))), rng)
            top, left = rng.integers(len(other) - _PIECE + 1, size=2)
            self._put(canvas, other[top : top + _PIECE, left : left + _PIECE], rng)
        return canvas * 2 - 1

    def _drawn(self, number: int, rng: np.random.Generator) -> Floats:
        drawn: Floats = self._scaled[int(rng.integers(*_SIDES))][number % len(self.labels)]
        return drawn

    @cached_property
    def _scaled(self) -> dict[int, Floats]:
        small = torch.from_numpy(self._images)[:, None]
        return {
            side: interpolate(small, size=(side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
            for side in range(*_SIDES)
        }

    @staticmethod
    def _put(canvas: Floats, piece: Floats, rng: np.random.Generator) -> None:
        top, left = rng.integers(SIZE - len(piece) + 1, size=2)
        place = canvas[top : top + len(piece), left : left + len(piece)]
        np.maximum(place, piece, out=place)


class _Batches:
    """(float32 [N, 3, SIZE, SIZE] in [-1, 1], int64 [N]), again and again."""

    def __init__(self, digits: _Digits, numbers: npt.NDArray[np.int64], batch: int, seed: int) -> None:
        self.digits, self.numbers, self.batch, self.seed = digits, numbers, batch, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.numbers), self.batch):
            numbers = [int(each) for each in self.numbers[start : start + self.batch]]
            pictures = torch.from_numpy(np.stack([self.digits.picture(each, self.seed) for each in numbers]))
            labels = torch.from_numpy(self.digits.labels[np.array(numbers) % len(self.digits.labels)])
            yield pictures[:, None].expand(-1, 3, -1, -1).contiguous(), labels
