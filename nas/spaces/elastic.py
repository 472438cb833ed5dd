"""The recipe's own model made elastic, whatever it is: its channels, repeated blocks and kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import Field

from bitwright.nas.block_choices import BlockSettings
from bitwright.nas.spaces import SpaceKind
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

    from bitwright.nas.elastic.elasticize import Elasticized


class Settings(BlockSettings):
    """The choices; see `elastic.decisions.Shrinkage`.

    Attributes:
        width: shares of the channels of each group that may stay.
        depth: blocks of each run of repeated ones that may stay.
        kernel: sides that kernels may shrink to.
        multiple: channels stay in multiples of it.
        network_stages: into how many stretches groups of channels, and kernels, are divided that are decided together;
            without it each is decided on its own.
        keep: globs over groups and modules that stay as they are.
        inexact: also channels that a layer norm takes statistics over.
        importance: which channels are kept.
    """

    width: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    depth: tuple[Annotated[int, Field(ge=0)], ...] = ()
    kernel: tuple[Annotated[int, Field(ge=1)], ...] = ()
    multiple: Annotated[int, Field(ge=1)] = 8
    network_stages: Annotated[int, Field(ge=1)] | None = None
    keep: tuple[str, ...] = ()
    inexact: bool = True
    importance: Literal["norm", "gamma"] = "norm"


def build(settings: Settings) -> NoReturn:
    """Refuses: the space follows from a model; see `of_model`.

    Raises:
        InputError: always.
    """
    raise InputError("search space: elastic follows from the network; it is made with it, by of_model")


def of_model(settings: Settings, model: torch.nn.Module, example: tuple[Any, ...]) -> Elasticized:
    """The network made elastic, its space included; raises as `elasticize`."""
    from bitwright.nas.elastic.decisions import Shrinkage
    from bitwright.nas.elastic.elasticize import elasticize

    asked = Shrinkage(
        width=settings.width,
        depth=settings.depth,
        kernel=settings.kernel,
        multiple=settings.multiple,
        stages=settings.network_stages,
        keep=settings.keep,
        inexact=settings.inexact,
        importance=settings.importance,
    )
    return elasticize(model, example, asked, block_choices=settings.block_choices())


SPACE = SpaceKind(settings=Settings, build=build, of_model=of_model)
