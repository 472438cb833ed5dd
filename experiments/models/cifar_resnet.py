"""ResNet-20 and its kin for 32×32 pictures, as CIFAR-10 made them known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`blocks` of each of the three groups: 3 for ResNet-20, 5 for ResNet-32; `width` scales channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    blocks: Annotated[int, Field(ge=1, le=18)] = 3
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    classes: Annotated[int, Field(ge=2)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes]."""
    from bitwright.experiments.models.residual_blocks import ResNet

    return ResNet(**settings.model_dump())


MODEL = ModelKind(settings=Settings, build=build)
