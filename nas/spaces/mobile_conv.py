"""MobileNet-like networks: width, depth, kernel and expansion for the whole network, a number format for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bitwright.nas.block_formats import BLOCK_FORMATS
from bitwright.nas.space import Candidate, Parameter, Value, spelled_as_declared
from bitwright.nas.spaces import SpaceKind
from bitwright.quant.errors import InputError, unknown

if TYPE_CHECKING:
    import torch

_ARCHITECTURE = ("width", "depth", "kernel", "expansion")


class Settings(BaseModel):
    """The choices; what is left out stays as the recipe's own model has it.

    Attributes:
        width: factors of all channel counts; `depth`, `kernel` and `expansion` likewise are the builder's arguments.
        depth: blocks in each group.
        kernel: sizes of the depthwise kernels.
        expansion: inner channels over outer ones.
        formats: number formats, chosen for each stage on its own.
        stages: into how many runs of consecutive blocks the network is split for that.
        blocks: the path of the module whose children are the blocks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: tuple[float, ...] | None = None
    depth: tuple[int, ...] | None = None
    kernel: tuple[int, ...] | None = None
    expansion: tuple[int, ...] | None = None
    formats: tuple[str, ...] | None = None
    stages: Annotated[int, Field(ge=1)] = 4
    blocks: str = "blocks"

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in formats or ():
            if name not in BLOCK_FORMATS:
                raise ValueError(str(unknown("block format", name, BLOCK_FORMATS)))
        return formats


@dataclass(frozen=True)
class MobileConvSpace:
    """See the module."""

    settings: Settings

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The architecture's first, then one format for each stage."""
        settings = self.settings
        parameters = [
            Parameter(name=name, choices=choices, ordered=True)
            for name in _ARCHITECTURE
            if (choices := getattr(settings, name)) is not None
        ]
        if settings.formats is not None:
            parameters += [
                Parameter(name=f"format_{stage}", choices=settings.formats, ordered=False)
                for stage in range(settings.stages)
            ]
        if not parameters:
            raise InputError("search space: nothing can be varied; give choices for width, depth, kernel or formats")
        return tuple(parameters)

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """See `SearchSpace.canonical`."""
        return spelled_as_declared(self.parameters, values)

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        """Arguments of the network's builder."""
        return {name: value for name, value in candidate.values.items() if name in _ARCHITECTURE}

    def formats(self, candidate: Candidate, model: torch.nn.Module) -> Mapping[str, str]:
        """The path of each block, with the format of its stage."""
        if self.settings.formats is None:
            return {}
        blocks, stages = self._block_paths(model), self.settings.stages
        if len(blocks) < stages:
            raise InputError(
                f"search space: the model has {len(blocks)} blocks in {self.settings.blocks!r}; "
                f"stages = {stages} cannot be more"
            )
        return {
            path: str(candidate.values[f"format_{index * stages // len(blocks)}"]) for index, path in enumerate(blocks)
        }

    def _block_paths(self, model: torch.nn.Module) -> list[str]:
        path = self.settings.blocks
        try:
            container = model.get_submodule(path)
        except AttributeError:
            has = ", ".join(name for name, _ in model.named_children())
            raise InputError(f"search space: blocks = {path!r}; the model has no such module, it has {has}") from None
        return [f"{path}.{name}" for name, _ in container.named_children()]


SPACE = SpaceKind(settings=Settings, build=MobileConvSpace)
