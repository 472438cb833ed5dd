"""An encoder of elastic stages with a pyramid or bird's-eye neck that names the class of each pixel, for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from bitwright.experiments.models import ModelKind
from bitwright.experiments.models.elastic_conv import Stages

if TYPE_CHECKING:
    import torch


class Settings(Stages):
    """See `Stages`; those of the neck may be given by level (`neck_kernel_0` is the finest).

    Attributes:
        neck: `fpn` adds coarser levels to finer ones, `bev` concatenates all at the finest size.
        neck_width: factor of the neck's channels; by level only where they are concatenated.
        neck_depth: pairs of depthwise and 1×1 convolutions at a level.
        neck_kernel: side of the depthwise kernels.
        classes: of pixels.
    """

    LOCAL: ClassVar[tuple[str, ...]] = (*Stages.LOCAL, "neck_width", "neck_depth", "neck_kernel")
    neck: Literal["fpn", "bev"] = "fpn"
    neck_width: Annotated[float, Field(gt=0, le=8)] = 1.0
    neck_depth: Annotated[int, Field(ge=0, le=4)] = 1
    neck_kernel: Literal[3, 5, 7] = 3
    classes: Annotated[int, Field(ge=2)] = 11


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes, H, W]."""
    from bitwright.experiments.models.elastic_necks import Segmenter

    return Segmenter(
        settings,
        family=settings.family,
        neck=settings.neck,
        resolution=settings.resolution,
        classes=settings.classes,
    )


MODEL = ModelKind(settings=Settings, build=build)
