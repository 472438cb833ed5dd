"""How far a quantized classifier is from its float original, with intervals over the images.

Intervals are percentile bootstraps (Efron and Tibshirani 1993, chapter 13) that resample images. Both classifiers
see the same images, so differences are resampled in pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.low, self.high

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    per_image: Floats, statistic: Callable[[Floats], Floats], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The statistic of the summed contributions, with its 95 % interval over images.

    Args:
        per_image: what each image contributes, [images, k].
        statistic: from sums over images [..., k] to the figure [...].
        resamples: how many; the interval's ends are percentiles of so many figures.
        seed: of the resampling.
    """
    drawn = _drawn(len(per_image), resamples, seed)
    low, high = np.percentile(statistic(drawn @ per_image), [2.5, 97.5], method="inverted_cdf")
    return Estimate(float(statistic(per_image.sum(axis=0))), float(low), float(high))


@lru_cache(maxsize=1)  # figures of one table are of the same images, and drawing takes longer than all else
def _drawn(images: int, resamples: int, seed: int) -> npt.NDArray[np.int32]:
    """How often each image is drawn in each resample, [resamples, images]: sums are then one matrix product."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.int32)


def agreement_percent(reference: Floats, logits: Floats) -> Estimate:
    """Share of images with the reference's top-1 class, in percent. Logits are [images, classes]."""
    same = reference.argmax(axis=1) == logits.argmax(axis=1)
    return share_percent(same)


def more_agreement(reference: Floats, one: Floats, other: Floats) -> Estimate:
    """By how many points one network has the reference's top-1 class more often than another, image by image."""
    wanted = reference.argmax(axis=1)
    same = [(scores.argmax(axis=1) == wanted).astype(np.float64) for scores in (one, other)]
    return _mean(100.0 * (same[0] - same[1]))


def top1_percent(logits: Floats, labels: Labels) -> Estimate:
    """Share of images whose top-1 class is the label, in percent."""
    return share_percent(logits.argmax(axis=1) == labels)


def top1_drop_points(reference: Floats, logits: Floats, labels: Labels) -> Estimate:
    """The reference's top-1 minus the other's, in points, image by image; negative is a gain."""
    right = [(scores.argmax(axis=1) == labels).astype(np.float64) for scores in (reference, logits)]
    return _mean(100.0 * (right[0] - right[1]))


def sqnr_db(reference: Floats, approximation: Floats) -> Estimate:
    """Signal to quantization-noise ratio, `10 log10(Σ reference² / Σ (reference - approximation)²)` in dB.

    Args:
        reference: float logits, [images, classes, …].
        approximation: the quantized network's, same shape.
    """
    signal = np.square(reference, dtype=np.float64).sum(axis=tuple(range(1, reference.ndim)))
    return bootstrap(np.stack([signal, _noise(reference, approximation)], axis=1), _decibels)


def more_sqnr(reference: Floats, one: Floats, other: Floats) -> Estimate:
    """By how many dB one network's SQNR is above another's, resampled in pairs."""
    return bootstrap(np.stack([_noise(reference, other), _noise(reference, one)], axis=1), _decibels)


def _noise(reference: Floats, approximation: Floats) -> npt.NDArray[np.float64]:
    """The squared error of each image, [images]."""
    axes = tuple(range(1, reference.ndim))
    errors: npt.NDArray[np.float64] = np.square(reference.astype(np.float64) - approximation).sum(axis=axes)
    return errors


def share_percent(per_image: npt.NDArray[np.bool_] | Floats) -> Estimate:
    """The mean of what each image contributes, from 0 to 1, in percent."""
    return _mean(100.0 * per_image)


def _decibels(sums: Floats) -> Floats:
    signal, noise = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(signal / noise))


def _mean(per_image: Floats) -> Estimate:
    images = len(per_image)
    return bootstrap(per_image[:, None].astype(np.float64), lambda sums: np.asarray(sums[..., 0] / images))
