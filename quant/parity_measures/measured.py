"""What a result is, and how far two of them lie apart by the measure that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Kind(StrEnum):
    """What a tensor stands for, and so what it is measured by."""

    CODES = "codes"  # of a quantized tensor: distance in codes
    VALUES = "values"  # real numbers: signal to noise
    LOGITS = "logits"  # of classes: signal to noise, and who comes first
    MASK = "mask"  # of pixels: intersection over union
    EMBEDDING = "embedding"  # a direction: cosine
    SEQUENCE = "sequence"  # real numbers step by step
    PLACES = "places"  # indices and coordinates: how many moved
    DETECTIONS = "detections"  # rows of (x0, y0, x1, y1, score, class): matched first
    BOXES = "boxes"  # the same in tensors of their own, as are the four below
    KEYPOINTS = "keypoints"
    SCORES = "scores"
    CLASSES = "classes"
    TRACKS = "tracks"


# Tensors that say one thing each about the same detections.
OF_DETECTIONS = frozenset({Kind.BOXES, Kind.KEYPOINTS, Kind.SCORES, Kind.CLASSES, Kind.TRACKS})


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Two tensors, or two groups of tensors that belong together.

    Attributes:
        name: of the tensor; of a group all of its names.
        kind: the measure that was taken.
        figures: what was measured, by name with unit.
        findings: what no figure can say: other shapes, NaNs in one of the two, detections that moved, each on its own.
    """

    name: str
    kind: Kind
    figures: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.6g}" for name, value in self.figures.items())
        return f"{self.name} ({self.kind}): " + "; ".join(filter(None, (numbers, *self.findings)))


def unlike(reference: Array, other: Array) -> tuple[str, ...]:
    """Why two tensors have no distance: another shape; NaNs or infinities in one of the two only. NaN equals NaN."""
    if reference.shape != other.shape:
        return (f"shape {list(other.shape)} against {list(reference.shape)}",)
    if reference.dtype.kind not in "fc" and other.dtype.kind not in "fc":
        return ()
    lone = int((np.isnan(reference) != np.isnan(other)).sum())
    infinite = int(((reference != other) & (np.isinf(reference) | np.isinf(other))).sum())
    found = []
    if lone:
        found.append(f"{lone} elements are NaN in one of the two only")
    if infinite:
        found.append(f"{infinite} elements are infinite in one of the two only")
    return tuple(found)


def finite_pair(reference: Array, other: Array) -> tuple[Array, Array]:
    """Both as float64 `[n]`, without the elements that are NaN or infinite in either."""
    both = np.isfinite(reference) & np.isfinite(other)
    return reference[both].astype(np.float64), other[both].astype(np.float64)
