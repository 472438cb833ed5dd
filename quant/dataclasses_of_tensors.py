"""Dataclasses that a network takes or returns, made known to torch so that captures see the tensors in them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree


@contextlib.contextmanager
def dataclasses_known(model: torch.nn.Module, arguments: Any) -> Iterator[None]:
    """While this lasts, dataclasses among the arguments and the results of `model` are registered as they are seen.

    They stay registered: a class that holds tensors is the same container everywhere.
    """
    _register(arguments)
    handle = model.register_forward_hook(lambda module, args, result: _register(result))
    try:
        yield
    finally:
        handle.remove()


def _register(value: Any) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in _pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
        for field in dataclasses.fields(value):
            _register(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            _register(each)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            _register(each)
