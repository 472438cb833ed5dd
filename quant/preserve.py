"""A model as it was before: whatever its own `forward` changes while somebody looks on is put back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

# Python containers in which models keep what they have seen; deeper ones belong to somebody else.
_CONTAINERS = (list, dict, set)


@contextlib.contextmanager
def preserved(model: torch.nn.Module) -> Iterator[None]:
    """Puts back modes, buffers, plain attributes and torch's random state; the same tensor objects hold the old values.

    Parameters are left alone: no `forward` writes into them.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = {buffer: buffer.clone() for table in buffers for buffer in table.values() if buffer is not None}
    plain = [plain_attributes(module) for module in modules]
    kept = [{name: _copy(value) for name, value in table.items()} for table in plain]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
        for module, table in zip(modules, buffers, strict=True):
            module._buffers.update(table)
        with torch.no_grad():
            for buffer, value in values.items():
                buffer.copy_(value)
        for module, table, old in zip(modules, plain, kept, strict=True):
            _put_back(module, table, old)


def plain_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """What a module keeps beside its parameters, buffers and submodules."""
    hidden = {"training", "_buffers", "_parameters", "_modules"}
    return {name: value for name, value in vars(module).items() if name not in hidden and "hooks" not in name}


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return copy.copy(value) if isinstance(value, _CONTAINERS) else value


def _put_back(module: torch.nn.Module, before: dict[str, Any], kept: dict[str, Any]) -> None:
    for name in plain_attributes(module).keys() - before.keys():
        delattr(module, name)
    for name, value in before.items():
        old = kept[name]
        if isinstance(value, torch.Tensor):
            with torch.no_grad():
                value.copy_(old)
        elif isinstance(value, list):
            value[:] = old
        elif isinstance(value, dict | set):
            value.clear()
            value.update(old)
        vars(module)[name] = value
