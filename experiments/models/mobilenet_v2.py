"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2), with torchvision's names of tensors.

So `model.weights` takes the files that torchvision publishes for it, such as `mobilenet_v2-b0353104.pth`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`width` scales channels to multiples of 8."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    classes: Annotated[int, Field(ge=2)] = 1000


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes]; 3.50 M parameters at width 1."""
    from bitwright.experiments.models.mobilenet_v2_layers import MobileNetV2

    return MobileNetV2(width=settings.width, classes=settings.classes)


MODEL = ModelKind(settings=Settings, build=build)
