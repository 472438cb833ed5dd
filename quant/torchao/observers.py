"""Our observers as torchao's flow calls them: modules that watch a tensor and are asked for scale and zero point."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torchao.quantization.pt2e import ObserverBase

from bitwright.quant.formats import IntFormat
from bitwright.quant.observers.base import create_observer
from bitwright.quant.qparams import QParams, choose_qparams
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.weights import choose_weight_qparams


class PlannedObserver(ObserverBase):  # type: ignore[misc]  # torchao has no types
    """What all of them tell torchao's conversion.

    Attributes:
        spec: what is asked for.
        axis: of the channels that have scales of their own; None for one scale.
    """

    def __init__(self, spec: QParamsSpec, axis: int | None = None, **_: Any) -> None:
        super().__init__(dtype=storage(spec), is_dynamic=False)
        self.spec, self.axis = spec, axis
        self.ch_axis = -1 if axis is None else axis
        self.qscheme = scheme_of(spec, axis)
        self.quant_min, self.quant_max = spec.code_range
        self.eps = torch.finfo(torch.float32).tiny

    @abstractmethod
    def chosen(self) -> QParams:
        """Scale and zero point by what was seen."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As torchao asks for them: float32 and int64, at least one-dimensional."""
        qparams = self.chosen()
        return qparams.scale.reshape(-1), qparams.zero_point.reshape(-1).to(torch.int64)


class ActivationObserver(PlannedObserver):
    """One of `quant.observers`."""

    def __init__(self, spec: QParamsSpec, **more: Any) -> None:
        super().__init__(spec, **more)
        self.observer = create_observer(spec)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes one batch."""
        if x.numel():
            self.observer.update(x)
        return x

    def chosen(self) -> QParams:
        """By the range of all batches."""
        return choose_qparams(*self.observer.range(), self.spec)


class WeightObserver(PlannedObserver):
    """Reads a weight's ranges off the weight itself."""

    def __init__(self, spec: QParamsSpec, axis: int | None = None, **more: Any) -> None:
        super().__init__(spec, axis, **more)
        self.weight = torch.zeros(0)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes the weight."""
        self.weight = x.detach()
        return x

    def chosen(self) -> QParams:
        """As `quant.weights` chooses."""
        return choose_weight_qparams(self.weight, self.spec, self.axis if self.axis is not None else 0)


def storage(spec: QParamsSpec) -> torch.dtype:
    """The type that holds a format's codes: 8 bits for narrower ones."""
    fmt = spec.format
    assert isinstance(fmt, IntFormat)
    if fmt.bits > 8:
        return torch.int16 if fmt.bits <= 16 else torch.int32
    return torch.int8 if fmt.signed else torch.uint8


def scheme_of(spec: QParamsSpec, axis: int | None) -> torch.qscheme:
    """Torch's word for symmetry and granularity."""
    if spec.granularity is Granularity.PER_CHANNEL and axis is not None:
        return torch.per_channel_symmetric if spec.symmetric else torch.per_channel_affine
    return torch.per_tensor_symmetric if spec.symmetric else torch.per_tensor_affine
