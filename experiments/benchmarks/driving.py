"""The driving-style networks of `tests/driving/networks`: each file's `build()` gives a network and its arguments."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks import places
from bitwright.quant.errors import unknown

_SEED = 0
_loads = itertools.count()


@dataclass(frozen=True, kw_only=True)
class DrivingNetwork:
    """A small network as such code looks in the field.

    Attributes:
        name: its file's name.
        file: the source that was run.
        model: the network, in eval mode, with seeded random weights.
        args: example arguments of `forward`.
    """

    name: str
    file: Path
    model: torch.nn.Module
    args: tuple[Any, ...]


def names() -> tuple[str, ...]:
    """All of them, by file name."""
    return tuple(sorted(file.stem for file in _folder().glob("*.py")))


def source_file(name: str) -> Path:
    """The file that a network is written in.

    Raises:
        InputError: there is no such network; those that there are get listed.
    """
    if name not in names():
        raise unknown("driving network", name, names())
    return _folder() / f"{name}.py"


def load(name: str, file: Path | None = None) -> DrivingNetwork:
    """Builds a network.

    Args:
        name: which one.
        file: another source to run in place of its own, such as an edited copy.

    Raises:
        InputError: there is no such network.
    """
    path = file or source_file(name)
    module_name = f"bitwright_driving_{name}_{next(_loads)}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None  # a path that ends in .py always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # torch.export looks classes up by the name of their module
    spec.loader.exec_module(module)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model, args = module.build()
    return DrivingNetwork(name=name, file=path, model=model.eval(), args=args)


def _folder() -> Path:
    return places.checkout() / "tests" / "driving" / "networks"
