"""A small encoder and decoder of inverted residuals that names the class of each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`width` scales channels, `depth` repeats blocks, `expansion` is their inner width."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    depth: Annotated[int, Field(ge=1, le=6)] = 2
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    classes: Annotated[int, Field(ge=2)] = 11


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes, H, W], sides multiples of 16."""
    from bitwright.experiments.models.inverted_residuals import MobileSegmenter

    return MobileSegmenter(**settings.model_dump())


MODEL = ModelKind(settings=Settings, build=build)
