"""What a method of rounding is given for a layer, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.moments import Moments
from bitwright.quant.reconstruct.refit import shift_of, sum_of


@dataclass(frozen=True, kw_only=True)
class LayerData:
    """One layer, and what was seen of its inputs.

    Attributes:
        layer: which.
        weight: in float, `[G, R, K]`.
        grid: the values that it may take.
        halves: moments of every other sample.
        has_bias: whether the layer has a bias of its own.
    """

    layer: Layer
    weight: torch.Tensor
    grid: Grid
    halves: Sequence[Moments]
    has_bias: bool


@dataclass(frozen=True)
class Rounded:
    """What a method chose.

    Attributes:
        weight: on the grid, float32 `[G, R, K]`.
        shift: what is added to the bias, `[G, R]`; 0 where the layer has none.
    """

    weight: torch.Tensor
    shift: torch.Tensor


class RoundingMethod(Protocol):
    """Rounds one layer after the other."""

    name: str

    def round(self, data: LayerData) -> Rounded:
        """Chooses a weight on the grid, and what is added to the bias."""


def rounded_bias(data: LayerData, weight: torch.Tensor, follows: torch.Tensor) -> torch.Tensor:
    """What is added to the bias so that rounding leaves no mean error, `[G, R]`.

    Args:
        data: the layer.
        weight: as rounded.
        follows: which rows also make up for the mean of the error that arrives, `[G, R]`.
    """
    whole = sum_of(data.halves)
    change = weight.double() - data.weight.double()
    if not data.has_bias:
        return torch.zeros_like(whole.difference)
    shift = shift_of(whole, change, bias=True)
    return torch.where(follows, shift, shift - whole.means()[1])
