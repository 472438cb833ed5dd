"""Search spaces, one a file: `SPACE` names its settings and builds the space from them.

Other packages add theirs through the entry points `bitwright.spaces`. Names are listed without importing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bitwright.nas.space import SearchSpace
from bitwright.quant.extension_point import ExtensionPoint

if TYPE_CHECKING:
    import torch

    from bitwright.nas.elastic.elastic import Elastic


@dataclass(frozen=True, kw_only=True)
class SpaceKind:
    """A registered search space.

    Attributes:
        settings: what a recipe may say about it.
        build: makes the space from checked settings.
        of_model: for spaces that follow from the user's network: makes it elastic from checked settings, the network
            and arguments of its `forward`; the space is the result's, and `build` is not called.
    """

    settings: type[BaseModel]
    build: Callable[[Any], SearchSpace]
    of_model: Callable[[Any, torch.nn.Module, tuple[Any, ...]], Elastic] | None = None


SPACES = ExtensionPoint(kind="search space", package="bitwright.nas.spaces", marker="SPACE", group="bitwright.spaces")


def space_names() -> tuple[str, ...]:
    """Names of all search spaces, without importing them."""
    return SPACES.names()


def load_space(name: str) -> SpaceKind:
    """Imports the search space of that name.

    Raises:
        InputError: there is none; the names that there are get listed.
    """
    return SPACES.load(name)  # type: ignore[no-any-return]
