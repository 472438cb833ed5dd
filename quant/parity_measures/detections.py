"""Lists of detections: the same objects in another order are the same result, so they are matched before comparing.

Who belongs to whom is the assignment with the least total cost (Kuhn, *The Hungarian Method for the Assignment
Problem*, 1955; `scipy.optimize.linear_sum_assignment`). Comparing row by row takes one swap in a top-k for two lost
and two invented objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitwright.quant.parity_measures.measured import Array, Kind

# A score must be known from its neighbour's by some digits; what lies farther apart than this share of the objects' own
# extent is another object. An intersection over union of 0.5 is where detection benchmarks begin to count a hit
# (Everingham et al., *The PASCAL Visual Object Classes Challenge*, 2010, section 4.2); of two equal squares, one moved
# sideways by a third of its width has it.
SAME_OBJECT = 1.0 / 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Objects in one image, each array with one row an object.

    Attributes:
        boxes: real `[n, d]`: of four numbers two corners, or a centre, a width and a height where they cannot be
            corners; of six and more a centre `x, y, z`, three extents, then angles and speeds.
        keypoints: real `[n, p, 2 or 3]`.
        scores: real `[n]`.
        classes: whole numbers `[n]`.
        tracks: whole numbers `[n]`; which number means which object is up to each side.
    """

    boxes: Array | None = None
    keypoints: Array | None = None
    scores: Array | None = None
    classes: Array | None = None
    tracks: Array | None = None

    @classmethod
    def of(cls, parts: Mapping[Kind, Array]) -> Detections:
        """By kind."""
        return cls(**{kind.value: array for kind, array in parts.items()})

    @classmethod
    def of_rows(cls, rows: Array) -> Detections:
        """Rows `[n, 5 or 6]` of two corners, a score and, where there is a sixth column, a class."""
        return cls(boxes=rows[:, :4], scores=rows[:, 4], classes=rows[:, 5] if rows.shape[1] > 5 else None)

    @property
    def count(self) -> int:
        """How many objects."""
        return next((len(each) for each in vars(self).values() if each is not None), 0)

    @property
    def positions(self) -> Array | None:
        """Where each object is, float64 `[n, d]`."""
        found = self.boxes if self.boxes is not None else self.keypoints
        return None if found is None else found.reshape(len(found), math.prod(found.shape[1:])).astype(np.float64)

    def extents(self) -> Array:
        """How large each object is, float64 `[n]`: the largest difference among its coordinates."""
        where = self.positions
        assert where is not None  # asked only of objects with a place
        if self.keypoints is not None and self.boxes is None:
            where = self.keypoints.astype(np.float64)
            spread: Array = np.ptp(where, axis=1).max(1)
            return spread
        if where.shape[1] != 4:
            across: Array = np.abs(where[:, 3:6]).max(1) if where.shape[1] >= 6 else np.ptp(where, axis=1)
            return across
        sides = where[:, 2:] - where[:, :2]
        largest: Array = np.abs(sides if (sides >= 0).all() else where[:, 2:]).max(1)
        return largest


def of_detections(reference: Detections, other: Detections) -> tuple[dict[str, float], tuple[str, ...]]:
    """Matches, then compares positions, scores, classes and the objects that only one side has.

    Returns:
        The figures, and a finding for each object that is missed, extra, or of another class or track.
    """
    rows, columns = match(reference, other)
    figures = {
        "objects": float(reference.count),
        "missed": float(reference.count - len(rows)),
        "extra": float(other.count - len(columns)),
        "in another order": float((np.argsort(rows) != np.argsort(columns)).sum()) if len(rows) else 0.0,
    }
    findings = [f"object {i} is missed" for i in sorted({*range(reference.count)} - {*rows.tolist()})]
    findings += [f"object {i} is extra" for i in sorted({*range(other.count)} - {*columns.tolist()})]
    here, there = reference.positions, other.positions
    if here is not None and there is not None and len(rows):
        figures["position off by at most"] = float(np.abs(here[rows] - there[columns]).max())
    if reference.scores is not None and other.scores is not None and len(rows):
        apart = reference.scores[rows].astype(np.float64) - other.scores[columns]
        figures["score off by at most"] = float(np.abs(apart).max())
    for name in ("classes", "tracks"):
        before, after = getattr(reference, name), getattr(other, name)
        if before is not None and after is not None:
            wrong = _changed(before[rows], after[columns], renamed=name == "tracks")
            figures[f"with another {'class' if name == 'classes' else 'track'}"] = float(len(wrong))
            findings += [
                f"object {rows[i]}: {name} {before[rows[i]]} against {after[columns[i]]}" for i in wrong.tolist()
            ]
    return figures, tuple(findings)


def match(reference: Detections, other: Detections) -> tuple[Array, Array]:
    """Rows of both sides that are the same object, int64 `[m]` each, in the reference's order.

    The cost of a pair is its distance in extents of the reference's object; equal distances are told apart by class and
    score. Pairs that lie farther apart than `SAME_OBJECT` are none. Without positions, scores and classes decide alone.
    """
    from scipy.optimize import linear_sum_assignment

    if not reference.count or not other.count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    apart = _distances(reference, other)
    hopeless = apart > SAME_OBJECT
    # Position first: classes and scores, each at most 1 apart, only decide between places that are as near.
    cost = apart + 1e-3 * _unlikeness(reference, other)
    # Two pairs that are none must never be cheaper than one that is.
    rows, columns = linear_sum_assignment(np.where(hopeless, 10.0 * (reference.count + other.count), cost))
    kept = ~hopeless[rows, columns]
    return rows[kept], columns[kept]


def _distances(reference: Detections, other: Detections) -> Array:
    """float64 `[n, m]`; NaN in both is no distance, NaN in one is an infinite one."""
    here, there = reference.positions, other.positions
    if here is None or there is None:
        return np.zeros((reference.count, other.count))
    size = np.maximum(np.nan_to_num(reference.extents()), np.finfo(np.float64).tiny)
    difference = np.abs(here[:, None] - there[None])
    neither = np.isnan(here)[:, None] & np.isnan(there)[None]
    difference = np.where(neither, 0.0, np.nan_to_num(difference, nan=np.inf))
    farthest: Array = difference.max(2, initial=0.0) / size[:, None]
    return farthest


def _unlikeness(reference: Detections, other: Detections) -> Array:
    """Another class counts 1, scores count by their difference, at most 1; float64 `[n, m]`."""
    unlike = np.zeros((reference.count, other.count))
    if reference.classes is not None and other.classes is not None:
        unlike += reference.classes[:, None] != other.classes[None]
    if reference.scores is not None and other.scores is not None:
        apart = np.abs(reference.scores[:, None].astype(np.float64) - other.scores[None])
        unlike += np.minimum(np.nan_to_num(apart, nan=1.0), 1.0)
    return unlike


def _changed(before: Array, after: Array, *, renamed: bool) -> Array:
    """Positions where two labels differ; names that one side gives all along in place of another are the same."""
    if not renamed:
        return np.flatnonzero(before != after)
    names: dict[int, int] = {}
    taken: dict[int, int] = {}
    wrong = []
    for i, (old, new) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        if names.setdefault(old, new) != new or taken.setdefault(new, old) != old:
            wrong.append(i)
    return np.array(wrong, np.int64)
