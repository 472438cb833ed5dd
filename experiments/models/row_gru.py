"""A recurrent network that reads a picture row by row, its gates as linear layers that a target's kernels run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """`size`: width of a row, as the data have it; `hidden`: of the state."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: Annotated[int, Field(ge=4, le=256)] = 16
    hidden: Annotated[int, Field(ge=8, le=1024)] = 96
    classes: Annotated[int, Field(ge=2)] = 10


def build(settings: Settings) -> torch.nn.Module:
    """The network with fresh weights: float32 [N, C, size, size] to logits [N, classes]; it reads the first channel."""
    from bitwright.experiments.models.gated_recurrence import RowReader

    return RowReader(**settings.model_dump())


MODEL = ModelKind(settings=Settings, build=build)
