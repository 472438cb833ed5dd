"""A small MobileNetV2 for 64×64 pictures, with the dimensions that a search varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`width` scales channels, `depth` repeats blocks, `kernel` is the depthwise one, `expansion` the inner width."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    depth: Annotated[int, Field(ge=1, le=6)] = 2
    kernel: Literal[3, 5, 7] = 3
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    classes: Annotated[int, Field(ge=2)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes]."""
    from bitwright.experiments.models.inverted_residuals import MobileNet

    return MobileNet(**settings.model_dump())


MODEL = ModelKind(settings=Settings, build=build)
