"""Elastic stages with a neck over them: in each level its width, depth and kernel, beside all that stages decide."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bitwright.nas.declared_space import DeclaredSpace, Need
from bitwright.nas.space import Parameter
from bitwright.nas.spaces import SpaceKind
from bitwright.nas.spaces.elastic_conv import Settings as StageSettings
from bitwright.nas.spaces.elastic_conv import stage_decisions, whole_decisions


class Settings(StageSettings):
    """The choices; those of stages are described in `elastic_conv`.

    Attributes:
        neck_width: factors of the neck's channels, for all levels together, as a pyramid adds them.
        neck_level_width: likewise for each level on its own, where a neck concatenates them.
        neck_depth: pairs of depthwise and 1×1 convolutions of each level.
        neck_kernel: sizes of the depthwise kernels of each level.
        levels: how many the neck has.
    """

    neck_width: tuple[float, ...] = ()
    neck_level_width: tuple[float, ...] = ()
    neck_depth: tuple[int, ...] = ()
    neck_kernel: tuple[int, ...] = ()
    levels: Annotated[int, Field(ge=1)] = 3


def build(settings: Settings) -> DeclaredSpace:
    """The space of these choices."""
    parameters, needs = stage_decisions(settings)
    decided = {
        "neck_depth": settings.neck_depth,
        "neck_width": settings.neck_level_width,
        "neck_kernel": settings.neck_kernel,
    }
    for level in range(settings.levels):
        for name, choices in decided.items():
            if choices:
                parameters.append(Parameter(name=f"{name}_{level}", choices=choices, ordered=True))
        if settings.neck_depth and settings.neck_kernel:
            needs[f"neck_kernel_{level}"] = Need(parameter=f"neck_depth_{level}", least=1)
    return DeclaredSpace(
        own=(*whole_decisions(settings, "resolution", "neck_width"), *parameters),
        needs=needs,
        block_choices=settings.block_choices(),
        nothing="give choices for neck_width, neck_depth, neck_kernel, or those of stages",
    )


SPACE = SpaceKind(settings=Settings, build=build)
