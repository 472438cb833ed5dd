"""A small vision transformer whose heads, inner widths, depth and tokens a search varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from bitwright.experiments.models import ModelKind
from bitwright.experiments.models.by_place import ByPlace

if TYPE_CHECKING:
    import torch


class Settings(ByPlace):
    """Heads and inner width may be given by block (`heads_2`).

    Attributes:
        width: channels of each token.
        depth: blocks.
        heads: of the attention, of `head_size` channels each.
        head_size: channels of a head.
        mlp: inner channels of the two linear layers over `width`.
        tokens: share of the tokens that the second half of the blocks sees, 1 / n: each is the average of n.
        patch: side of the square of pixels that becomes a token.
        size: side of the picture.
        classes: of pictures.
    """

    LOCAL: ClassVar[tuple[str, ...]] = ("heads", "mlp")
    width: Annotated[int, Field(ge=8)] = 64
    depth: Annotated[int, Field(ge=1, le=24)] = 4
    heads: Annotated[int, Field(ge=1)] = 4
    head_size: Annotated[int, Field(ge=1)] = 16
    mlp: Annotated[float, Field(gt=0, le=8)] = 2.0
    tokens: Annotated[float, Field(gt=0, le=1)] = 1.0
    patch: Annotated[int, Field(ge=1)] = 4
    size: Annotated[int, Field(ge=4)] = 32
    classes: Annotated[int, Field(ge=2)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, 3, size, size] to logits [N, classes]."""
    from bitwright.experiments.models.elastic_attention import TransformerEncoder

    blocks = range(settings.depth)
    return TransformerEncoder(
        width=settings.width,
        heads=[settings.at("heads", block) for block in blocks],
        inner=[max(1, round(settings.width * settings.at("mlp", block))) for block in blocks],
        head_size=settings.head_size,
        tokens=settings.tokens,
        patch=settings.patch,
        size=settings.size,
        classes=settings.classes,
    )


MODEL = ModelKind(settings=Settings, build=build)
