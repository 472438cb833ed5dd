"""What a method of rounding is given for a layer, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch

from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.moments import Moments
from bitwright.quant.reconstruct.refit import shift_of, sum_of, sum_of_

if TYPE_CHECKING:
    from bitwright.quant.reconstruct.block_learning import BlockData, Learned


class Seen(NamedTuple):
    """Inputs of a layer `[G, K, N]`, what they should give `[G, R, N]`, and how much each position counts, `[N]`."""

    columns: torch.Tensor
    truth: torch.Tensor
    shares: torch.Tensor


@dataclass
class Positions:
    """Some positions of every sample.

    Attributes:
        columns: inputs from the quantized network, one `[G, K, n]` a sample.
        truth: results in float, before or behind the activation, one `[G, R, n]` a sample.
        shares: how much each position of a sample counts, as in `Moments`, by the sample's number.
    """

    columns: list[torch.Tensor] = field(default_factory=list)
    truth: list[torch.Tensor] = field(default_factory=list)
    shares: dict[int, float] = field(default_factory=dict)

    def add(self, columns: torch.Tensor, truth: torch.Tensor, most: int) -> None:
        """Keeps at most so many positions, evenly spaced."""
        step = -(-columns.shape[2] // max(1, most))
        self.columns.append(columns[:, :, ::step].clone())
        self.truth.append(truth[:, :, ::step].clone())

    def joined(self, samples: Sequence[int]) -> Seen:
        """Those of some samples side by side; shares of mean 1."""
        columns, truth = ([parts[sample] for sample in samples] for parts in (self.columns, self.truth))
        counts = torch.tensor([part.shape[2] for part in columns])
        shares = torch.tensor([self.shares[sample] for sample in samples]).repeat_interleave(counts)
        return Seen(torch.cat(columns, 2), torch.cat(truth, 2), shares / shares.mean())


@dataclass(frozen=True, kw_only=True)
class LayerData:
    """One layer, and what was seen of its inputs.

    Attributes:
        layer: which.
        weight: in float, `[G, R, K]`.
        grid: the values that it may take.
        halves: moments of every other sample, until `refit` or `hessian_` joins them.
        has_bias: whether the layer has a bias of its own.
        bias: of the layer, `[G, R]`; 0 where it has none.
        positions: some of the columns and what they should give, for methods that ask for them.
        rows_have_scales: whether each row has one scale of its own, which may be any number.
    """

    layer: Layer
    weight: torch.Tensor
    grid: Grid
    halves: list[Moments]
    has_bias: bool
    bias: torch.Tensor
    positions: Positions | None = None
    rows_have_scales: bool = False

    def hessian_(self) -> torch.Tensor:
        """`E[x x^T]` of all samples, of what a bias leaves of it, `[G, K, K]`; the moments keep no products."""
        total = sum_of_(self.halves)
        hessian, _ = total.centred(bias=self.has_bias, keep=False)
        self.halves[:] = [total.of_first_order()]
        return hessian


@dataclass(frozen=True)
class Rounded:
    """What a method chose.

    Attributes:
        weight: on the grid, float32 `[G, R, K]`.
        shift: what is added to the bias, `[G, R]`; 0 where the layer has none.
        wanted: the weight that was rounded, `[G, R, K]`; None where it is the layer's own.
        factors: of the scales of the grid that it was rounded to, `[G, R]`; None where they are what they were.
    """

    weight: torch.Tensor
    shift: torch.Tensor
    wanted: torch.Tensor | None = None
    factors: torch.Tensor | None = None


class RoundingMethod(Protocol):
    """Rounds one layer after the other.

    Attributes:
        name: as users write it.
        samples: how many it wants to see, of those that calibration reads.
        wants_products: whether it needs more of the moments than the means.
        position_bytes: how much of the positions themselves it wants to see; 0 when moments are enough.
    """

    name: str
    samples: int
    wants_products: bool
    position_bytes: int

    def round(self, data: LayerData) -> Rounded:
        """Chooses a weight on the grid, and what is added to the bias."""


@runtime_checkable
class BlockMethod(RoundingMethod, Protocol):
    """Rounds one layer after the other, and then the layers of each block once more together."""

    def round_block(self, data: BlockData) -> Learned | None:
        """Chooses parameters and scales of a block; None leaves those that were there."""


def rounded_bias(data: LayerData, weight: torch.Tensor, follows: torch.Tensor) -> torch.Tensor:
    """What is added to the bias so that rounding leaves no mean error, `[G, R]`.

    Args:
        data: the layer.
        weight: as rounded.
        follows: which rows also make up for the mean of the error that arrives, `[G, R]`.
    """
    whole = sum_of([half.of_first_order() for half in data.halves])
    change = weight.double() - data.weight.double()
    if not data.has_bias:
        return torch.zeros_like(whole.difference)
    shift = shift_of(whole, change, bias=True)
    return torch.where(follows, shift, shift - whole.means()[1])
