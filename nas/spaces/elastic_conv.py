"""Stages of convolutional blocks, decided stage by stage or block by block, as once-for-all networks have them.

Depth, kernel and expansion after Cai et al. 2020 (arXiv:1908.09791, section 4); gate and activation after the space of
MobileNetV3 (Howard et al. 2019, arXiv:1905.02244). The recipe's model is `elastic_conv`, or any other that takes such
settings (`width_0`, `kernel_1`, `kernel_1_0`, …).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bitwright.nas.block_choices import BlockSettings
from bitwright.nas.declared_space import DeclaredSpace, Need
from bitwright.nas.space import Parameter, Value
from bitwright.nas.spaces import SpaceKind
from bitwright.quant.errors import InputError

_BY_BLOCK = ("kernel", "expansion", "se", "activation")


class Settings(BlockSettings):
    """The choices; what is left out stays as the recipe's model has it.

    Attributes:
        width: factors of the channels of each stage.
        depth: blocks in each stage.
        kernel: sizes of kernels.
        expansion: inner channels over outer ones.
        se: whether blocks have a squeeze-and-excitation gate.
        activation: names.
        resolution: sides of the picture, for the whole network.
        network_stages: how many stages the model has.
        per: whether kernel, expansion, gate and activation are decided by stage or by block.
    """

    width: tuple[float, ...] = ()
    depth: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    expansion: tuple[float, ...] = ()
    se: tuple[bool, ...] = ()
    activation: tuple[str, ...] = ()
    resolution: tuple[int, ...] = ()
    network_stages: Annotated[int, Field(ge=1)] = 4
    per: Literal["stage", "block"] = "stage"


def stage_decisions(settings: Settings) -> tuple[list[Parameter], dict[str, Need]]:
    """Parameters of all stages, and what those of single blocks need: that the block is there.

    Raises:
        InputError: blocks are decided one by one, and nothing says how many there are.
    """
    if settings.per == "block" and not settings.depth:
        raise InputError("search space: per = block needs depth; [2] says that each stage has two blocks")
    parameters, needs = [], {}
    for stage in range(settings.network_stages):
        for name in ("depth", "width", *_BY_BLOCK):
            choices: tuple[Value, ...] = getattr(settings, name)
            if not choices:
                continue
            by_block = settings.per == "block" and name in _BY_BLOCK
            for block in range(max(settings.depth)) if by_block else [None]:
                place = f"{name}_{stage}" if block is None else f"{name}_{stage}_{block}"
                parameters.append(Parameter(name=place, choices=choices, ordered=name not in ("se", "activation")))
                if block and settings.depth:
                    needs[place] = Need(parameter=f"depth_{stage}", least=block + 1)
    return parameters, needs


def whole_decisions(settings: Settings, *names: str) -> list[Parameter]:
    """Parameters of the whole network, where they have choices."""
    return [
        Parameter(name=name, choices=choices, ordered=True) for name in names if (choices := getattr(settings, name))
    ]


def build(settings: Settings) -> DeclaredSpace:
    """The space of these choices."""
    parameters, needs = stage_decisions(settings)
    return DeclaredSpace(
        own=(*whole_decisions(settings, "resolution"), *parameters),
        needs=needs,
        block_choices=settings.block_choices(),
        nothing="give choices for width, depth, kernel, expansion, se, activation, resolution, formats or sparsity",
    )


SPACE = SpaceKind(settings=Settings, build=build)
