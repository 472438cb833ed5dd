"""The values that a weight may take, one scale and zero point for each element, in the layout of a layer's matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from bitwright.quant.fake_quantize import aligned, fake_quantize
from bitwright.quant.qparams import QParams
from bitwright.quant.scheme import Granularity, QParamsSpec, ScaleKind

ToMatrix = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Grid:
    """Of a weight `[G, R, K]`.

    Attributes:
        spec: as the weight's, with a scale for each element in place of channels or blocks.
        scale: float32 `[G, R, K]`.
        zero_point: likewise.
    """

    spec: QParamsSpec
    scale: torch.Tensor
    zero_point: torch.Tensor

    @classmethod
    def of(cls, qparams: QParams, weight: torch.Tensor, matrix: ToMatrix) -> Grid:
        """The grid of a weight whose matrix is `matrix(weight)`."""
        alone = replace(
            qparams.spec, granularity=Granularity.PER_CHANNEL, block_size=None, scale_kind=ScaleKind.FLOAT32
        )
        scale, zero_point = (matrix(aligned(part, qparams, weight)) for part in (qparams.scale, qparams.zero_point))
        return cls(alone, scale, zero_point)

    def nearest(self, values: torch.Tensor, term: int | None = None) -> torch.Tensor:
        """Values `[G, R, K]`, or those of one term `[G, R]`, rounded to nearest; float32 on the grid."""
        place = (slice(None), slice(None), slice(None) if term is None else term)
        scale, zero_point = self.scale[place].flatten(), self.zero_point[place].flatten()
        flat = values.reshape(-1).to(torch.float32)
        return fake_quantize(flat, QParams(self.spec, scale, zero_point, 0)).reshape(values.shape)

    def scaled(self, factors: torch.Tensor) -> Grid:
        """The grid with each row's steps so many times as large; factors `[G, R]`."""
        return replace(self, scale=self.scale * factors[:, :, None])
