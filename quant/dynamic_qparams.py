"""Scales that follow the data: chosen anew from each tensor while the network runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bitwright.quant.qparams import QParams, block_extremes, choose_qparams
from bitwright.quant.scheme import QParamsSpec


@dataclass(frozen=True, kw_only=True)
class DynamicQParams:
    """How the qparams of one activation follow from its values.

    Attributes:
        spec: a dynamic one.
        axis: the axis that is cut into blocks; None per tensor.
        tensor_scale: the calibrated second level of a scale of kind `float8_e4m3`, float32 `[]`; else None.
    """

    spec: QParamsSpec
    axis: int | None = None
    tensor_scale: torch.Tensor | None = None

    def of(self, values: torch.Tensor) -> QParams:
        """The qparams that these values get: from the extremes of the tensor, or of each block.

        NaN and infinity have no scale: their tensor or block gets NaN, so that a simulation shows them.

        Args:
            values: float32, any shape with at least one element.
        """
        finite = values.isfinite()
        low, high = self._extremes(torch.where(finite, values, 0.0))
        chosen = choose_qparams(low, high, self.spec, axis=self.axis, tensor_scale=self.tensor_scale)
        if finite.all():
            return chosen
        broken = self._extremes((~finite).to(torch.float32))[1] > 0
        return replace(chosen, scale=torch.where(broken, torch.nan, chosen.scale))

    def _extremes(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.spec.block_size is None or self.axis is None:
            low, high = torch.aminmax(values)
            return low, high
        return block_extremes(values, self.spec.block_size, self.axis)
