"""How far a quantized segmentation network is from its float original, with intervals over the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.metrics import Estimate, Floats, Labels, bootstrap, share_percent


@dataclass(frozen=True, kw_only=True)
class LabelledPixels:
    """What is true of the scored pictures.

    Attributes:
        labels: class ids, [pictures, H, W].
        classes: how many.
        ignored: the id that no metric counts.
    """

    labels: Labels
    classes: int
    ignored: int

    def miou_drop(self, reference: Floats, logits: Floats) -> Estimate:
        """The reference's mean intersection over union minus the other's, in points; negative is a gain.

        Logits are [pictures, classes, H, W]; the mean goes over the classes that occur in labels or decisions.
        """
        both = np.concatenate([self._confusion(reference), self._confusion(logits)], axis=1)
        half = both.shape[1] // 2
        return bootstrap(both, lambda sums: self._miou(sums[..., :half]) - self._miou(sums[..., half:]))

    def miou(self, logits: Floats) -> Estimate:
        """Mean intersection over union, in percent."""
        return bootstrap(self._confusion(logits), self._miou)

    def _confusion(self, logits: Floats) -> Floats:
        """How many pixels of each class are taken for which, [pictures, classes²]."""
        pairs = self.labels * self.classes + logits.argmax(axis=1)
        counted = self.labels != self.ignored
        size = self.classes**2
        return np.stack(
            [np.bincount(pair[count], minlength=size) for pair, count in zip(pairs, counted, strict=True)]
        ).astype(np.float64)

    def _miou(self, sums: Floats) -> Floats:
        table = sums.reshape(*sums.shape[:-1], self.classes, self.classes)
        both = np.diagonal(table, axis1=-2, axis2=-1)
        either = table.sum(-1) + table.sum(-2) - both
        occurs = either > 0
        share: Floats = np.where(occurs, both / np.maximum(either, 1.0), 0.0).sum(-1) / occurs.sum(-1)
        return 100.0 * share


def pixel_agreement_percent(reference: Floats, logits: Floats) -> Estimate:
    """Share of pixels with the reference's class, in percent. Logits are [pictures, classes, H, W]."""
    same: npt.NDArray[np.bool_] = reference.argmax(axis=1) == logits.argmax(axis=1)
    return share_percent(same.mean(axis=(1, 2)))
