"""MobileNet-like networks: width, depth, kernel and expansion for the whole network, formats and zeros by stage."""

from __future__ import annotations

from bitwright.nas.block_choices import BlockSettings
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.space import Parameter
from bitwright.nas.spaces import SpaceKind

_ARCHITECTURE = ("width", "depth", "kernel", "expansion")


class Settings(BlockSettings):
    """The choices; what is left out stays as the recipe's own model has it.

    Attributes:
        width: factors of all channel counts; `depth`, `kernel` and `expansion` likewise are the builder's arguments.
        depth: blocks in each group; a supernet shares blocks by name, for which `elastic_conv` has stages.
        kernel: sizes of the depthwise kernels.
        expansion: inner channels over outer ones.
    """

    width: tuple[float, ...] | None = None
    depth: tuple[int, ...] | None = None
    kernel: tuple[int, ...] | None = None
    expansion: tuple[int, ...] | None = None


def build(settings: Settings) -> DeclaredSpace:
    """The space of these choices."""
    return DeclaredSpace(
        own=tuple(
            Parameter(name=name, choices=choices, ordered=True)
            for name in _ARCHITECTURE
            if (choices := getattr(settings, name)) is not None
        ),
        block_choices=settings.block_choices(),
        nothing="give choices for width, depth, kernel, expansion, formats or sparsity",
    )


SPACE = SpaceKind(settings=Settings, build=build)
