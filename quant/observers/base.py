"""What an observer is, and how one is found by name."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from bitwright.quant.errors import InputError, unknown
from bitwright.quant.scheme import QParamsSpec


class Observer(Protocol):
    """Streams tensors in, gives a range out."""

    name: ClassVar[str]

    def __init__(self, spec: QParamsSpec, **arguments: Any) -> None: ...

    def update(self, values: torch.Tensor) -> None:
        """Takes one batch of values, any shape, floating point, finite."""

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The range to represent, as two float32 scalars; asked for after at least one update."""


@cache
def observer_names() -> tuple[str, ...]:
    """Names of all observers, without importing them."""
    own = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "base", "histogram"}
    others = {point.name for point in importlib.metadata.entry_points(group="bitwright.observers")}
    if own & others:
        raise InputError(f"observer {sorted(own & others)[0]!r} is registered twice")
    return tuple(sorted(own | others))


def create_observer(spec: QParamsSpec) -> Observer:
    """Makes the observer that a spec names.

    Raises:
        InputError: unknown name or argument; the choices are listed.
    """
    if spec.observer not in observer_names():
        raise unknown("observer", spec.observer, observer_names())
    try:
        return _observer_class(spec.observer)(spec, **spec.observer_arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"observer {spec.observer!r}: {error}") from error


@cache
def _observer_class(name: str) -> type[Observer]:
    for point in importlib.metadata.entry_points(group="bitwright.observers", name=name):
        return point.load()  # type: ignore[no-any-return]
    return importlib.import_module(f"bitwright.quant.observers.{name}").OBSERVER  # type: ignore[no-any-return]
