"""MobileNetV2 that names the class of each pixel, as engineers build it by hand: dilated to a sixteenth, and a decoder.

The encoder has torchvision's names of tensors (`features.…`), so that its published weights can be copied in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`width` scales channels to multiples of 8; for `decoder` see `mobilenet_v2_decoders`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    decoder: Literal["lr_aspp", "deeplab_v3_plus"] = "deeplab_v3_plus"
    classes: Annotated[int, Field(ge=2)] = 11


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes, H, W], sides multiples of 16."""
    from bitwright.experiments.models.mobilenet_v2_decoders import MobileNetV2Segmenter

    return MobileNetV2Segmenter(width=settings.width, decoder=settings.decoder, classes=settings.classes)


MODEL = ModelKind(settings=Settings, build=build)
