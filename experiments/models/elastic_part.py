"""A part of another network: what a search over `kind: elastic` has cut out of it, with the values that it has there.

Recipes of a search's finalists name it; nobody else has to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bitwright.experiments.models import ModelKind
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch


class Settings(BaseModel):
    """Where the part comes from.

    Attributes:
        whole: the network, as a recipe's `model` says it.
        space: the search space, one that follows from a network (`kind: elastic`), without formats.
        choices: what was chosen, by the names that the space has for its decisions.
        inputs: shapes of the float arguments of `forward` that the network is captured with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    whole: dict[str, Any]
    space: dict[str, Any]
    choices: dict[str, bool | int | float | str]
    inputs: Annotated[tuple[tuple[int, ...], ...], Field(min_length=1)]


def build(settings: Settings) -> torch.nn.Module:
    """The part; takes what the whole network takes.

    Raises:
        InputError: the whole cannot be built or made elastic, or a choice is none of its space's.
    """
    import torch

    from bitwright.experiments.recipe import ModelSection
    from bitwright.experiments.workbench import build_model
    from bitwright.nas.elastic import inherit
    from bitwright.nas.space import Candidate
    from bitwright.nas.spaces import load_space

    asked = dict(settings.space)
    name = str(asked.pop("kind", "elastic"))
    kind = load_space(name)
    if kind.of_model is None:
        raise InputError(f"model.space.kind = {name!r}: its candidates are no parts of a network; elastic's are")
    whole = build_model(ModelSection(**settings.whole))
    example = tuple(torch.zeros(shape) for shape in settings.inputs)
    elastic = kind.of_model(kind.settings.model_validate(asked), whole, example)
    candidate = Candidate(elastic.space.canonical(settings.choices))
    return inherit(elastic, candidate).eval()


MODEL = ModelKind(settings=Settings, build=build)
