"""A small detector: an encoder of inverted residuals, and in each cell of 8×8 pixels scores and a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`width` scales channels, `depth` repeats blocks, `classes` without the one that says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    depth: Annotated[int, Field(ge=1, le=6)] = 2
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    classes: Annotated[int, Field(ge=1)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to [N, 1 + classes + 4, H / 8, W / 8]."""
    from bitwright.experiments.models.inverted_residuals import MobileDetector

    return MobileDetector(**settings.model_dump())


MODEL = ModelKind(settings=Settings, build=build)
