"""How tensors stand in a `.tflite` file: the order of their axes, and the grid of their codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Layout(StrEnum):
    """The order of a tensor's axes."""

    PLAIN = "plain"
    CHANNELS_LAST = "channels_last"  # the second axis stands behind the others


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of int8 codes, as the file states them."""

    scale: float
    zero_point: int


def arranged(shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """A shape in a layout; tensors of fewer than three axes have but one."""
    if layout is Layout.PLAIN or len(shape) < 3:
        return tuple(shape)
    return (shape[0], *shape[2:], shape[1])


def arranged_axis(axis: int, rank: int, layout: Layout) -> int:
    """Where one of PyTorch's axes stands in a layout."""
    axis %= rank
    if layout is Layout.PLAIN or rank < 3 or axis == 0:
        return axis
    return rank - 1 if axis == 1 else axis - 1


def other_layout(layout: Layout) -> Layout:
    """The one that a layout is not."""
    return Layout.PLAIN if layout is Layout.CHANNELS_LAST else Layout.CHANNELS_LAST
