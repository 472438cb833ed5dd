"""Four stages of MobileNetV3-like or ResNet-like blocks whose settings may differ by stage and block, for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from bitwright.experiments.models import ModelKind
from bitwright.experiments.models.by_place import ByPlace

if TYPE_CHECKING:
    import torch


class Stages(ByPlace):
    """What stages are made of; each may differ by stage (`kernel_1`), all but width and depth by block (`kernel_1_0`).

    Attributes:
        family: of blocks.
        width: factor of channels; without a stage also of the stem's.
        depth: blocks.
        kernel: side of the depthwise kernels, or of all kernels of a residual block.
        expansion: inner channels over the block's inputs, or outputs of a residual block.
        se: whether blocks have a squeeze-and-excitation gate.
        activation: of the blocks; without a stage also of stem and head.
        resolution: the side that pictures are scaled to first, so that all behind it computes on fewer pixels.
    """

    LOCAL: ClassVar[tuple[str, ...]] = ("width", "depth", "kernel", "expansion", "se", "activation")
    family: Literal["mobile", "residual"] = "mobile"
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    kernel: Literal[1, 3, 5, 7] = 3
    expansion: Annotated[float, Field(gt=0, le=8)] = 4
    se: bool = False
    activation: Literal["relu", "relu6", "hardswish", "silu"] = "relu6"
    resolution: Annotated[int, Field(ge=16)] | None = None


class Settings(Stages):
    """See `Stages`."""

    classes: Annotated[int, Field(ge=2)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, H, W] to logits [N, classes]."""
    from bitwright.experiments.models.elastic_layers import ConvNet

    return ConvNet(settings, family=settings.family, resolution=settings.resolution, classes=settings.classes)


MODEL = ModelKind(settings=Settings, build=build)
