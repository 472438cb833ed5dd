"""Search spaces, one a file: `SPACE` names its settings and builds the space from them.

Other packages add theirs through the entry points `bitwright.spaces`. Names are listed without importing anything.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bitwright.nas.space import SearchSpace
from bitwright.quant.errors import InputError, unknown

ENTRY_POINTS = "bitwright.spaces"


@dataclass(frozen=True, kw_only=True)
class SpaceKind:
    """A registered search space.

    Attributes:
        settings: what a recipe may say about it.
        build: makes the space from checked settings.
    """

    settings: type[BaseModel]
    build: Callable[[Any], SearchSpace]


@cache
def space_names() -> tuple[str, ...]:
    """Names of all search spaces.

    Raises:
        InputError: a name is registered twice.
    """
    own = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__"}
    others = [point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    for name in others:
        if name in own or others.count(name) > 1:
            raise InputError(f"search space {name!r} is registered twice; uninstall one of the packages that bring it")
    return tuple(sorted([*own, *others]))


def load_space(name: str) -> SpaceKind:
    """Imports the search space of that name.

    Raises:
        InputError: there is none; the names that there are get listed.
    """
    if name not in space_names():
        raise unknown("search space", name, space_names())
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        return point.load()  # type: ignore[no-any-return]
    return importlib.import_module(f"bitwright.nas.spaces.{name}").SPACE  # type: ignore[no-any-return]
