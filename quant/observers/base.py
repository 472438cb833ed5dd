"""What an observer is, and how one is found by name."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from bitwright.quant.errors import InputError, unknown
from bitwright.quant.observers import OBSERVERS
from bitwright.quant.observers.importance import Importance
from bitwright.quant.scheme import QParamsSpec


class Observer(Protocol):
    """Streams tensors in, gives a range out."""

    name: ClassVar[str]

    def __init__(self, spec: QParamsSpec, **arguments: Any) -> None: ...

    def update(self, values: torch.Tensor) -> None:
        """Takes one batch of values, any shape, floating point, not empty.

        Raises:
            NotFiniteError: NaN or infinity is among them (`extremes` sees that in the pass that it makes anyway).
        """

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The range to represent, as two float32 scalars; asked for after at least one update."""


@runtime_checkable
class WeighingObserver(Protocol):
    """An observer that balances errors, and can be told what each channel's errors weigh."""

    weighs: ClassVar[bool]

    def update(self, values: torch.Tensor, importance: Importance | None = None) -> None:
        """As `Observer.update`, with the weight of each channel."""


def observer_names() -> tuple[str, ...]:
    """Names of all observers, without importing them."""
    return OBSERVERS.names()


def create_observer(spec: QParamsSpec) -> Observer:
    """Makes the observer that a spec names.

    Raises:
        InputError: unknown name or argument; the choices are listed.
    """
    kind = _observer_class(spec.observer)
    takes = inspect.signature(kind).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in takes):
        known = [each.name for each in takes if each.kind is each.KEYWORD_ONLY]
        for name in spec.observer_arguments:
            if name not in known:
                raise unknown(f"argument of observer {spec.observer!r}", name, known)
    try:
        return kind(spec, **spec.observer_arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"observer {spec.observer!r}: {error}") from error


@cache
def _observer_class(name: str) -> type[Observer]:
    return OBSERVERS.load(name)  # type: ignore[no-any-return]
