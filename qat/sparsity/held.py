"""Who makes a model smaller at the moment: one at a time, since each knows the weights as it left them."""

from __future__ import annotations

import weakref

from torch import nn

from bitwright.quant.errors import InputError

_HELD: weakref.WeakKeyDictionary[nn.Module, weakref.ref[object]] = weakref.WeakKeyDictionary()


def check_free(model: nn.Module) -> None:
    """Refuses a model that is being made smaller.

    Raises:
        InputError: says by what.
    """
    held = _HELD.get(model)
    owner = None if held is None else held()
    if owner is not None:
        raise InputError(
            f"a {type(owner).__name__} is attached to this model already; call its finish() before another is attached"
        )


def hold(model: nn.Module, owner: object) -> None:
    """From now on the model is this one's, as long as it lives."""
    _HELD[model] = weakref.ref(owner)


def release(model: nn.Module) -> None:
    """It is free again."""
    _HELD.pop(model, None)
