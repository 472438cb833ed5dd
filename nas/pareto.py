"""Pareto fronts: which results nothing else beats in every objective, and how much of the space they cover."""

from __future__ import annotations

from collections.abc import Sequence

Point = Sequence[float]


def losses(values: Point, maximize: Sequence[bool]) -> tuple[float, ...]:
    """The same point with every objective turned so that less is better."""
    return tuple(-value if up else value for value, up in zip(values, maximize, strict=True))


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better; less is better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, in their order; equal points all stay. Less is better.

    In lexicographic order a point can only be dominated by one before it, and domination is transitive: comparing with
    the front so far is enough (Kung et al. 1975). Thousands of points take milliseconds.
    """
    import numpy as np

    if not points:
        return []
    values = np.asarray(points, dtype=np.float64)
    front, kept = np.empty_like(values), list[int]()
    for index in np.lexsort(values.T[::-1]):
        before = front[: len(kept)]
        no_worse = (before <= values[index]).all(axis=1)
        if (no_worse & (before < values[index]).any(axis=1)).any():
            continue
        front[len(kept)] = values[index]
        kept.append(int(index))
    return sorted(kept)


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that is dominated by `points` and dominates `reference`; less is better.

    Sweeps the last objective and adds slices of one dimension less (hypervolume by slicing objectives: While et al.
    2006, A faster algorithm for calculating hypervolume). Exact, and fast for fronts of hundreds in two or three
    dimensions.
    """
    inside = [tuple(point) for point in points if all(a < b for a, b in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(point[0] for point in inside))
    inside.sort(key=lambda point: point[-1])
    ends = [point[-1] for point in inside[1:]] + [reference[-1]]
    volume = 0.0
    for count, (point, end) in enumerate(zip(inside, ends, strict=True), start=1):
        if end > point[-1]:
            volume += (end - point[-1]) * hypervolume([p[:-1] for p in inside[:count]], reference[:-1])
    return volume
