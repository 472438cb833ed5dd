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
    """Indices of the points that no other dominates, in their order; equal points all stay. Less is better."""
    return [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]


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
