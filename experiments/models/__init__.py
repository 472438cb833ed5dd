"""Networks that recipes name, one a file: `MODEL` gives the settings and builds the module (torch is imported then)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """A registered network.

    Attributes:
        settings: what a recipe may say about it.
        build: makes the module, with fresh weights, from checked settings.
    """

    settings: type[BaseModel]
    build: Callable[[Any], torch.nn.Module]
