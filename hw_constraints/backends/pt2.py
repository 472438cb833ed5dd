"""Reads what `torch.export.save` wrote, without running anything that stands in the file.

`torch.export.load` unpickles weights and example inputs, loads compiled libraries and evaluates symbolic expressions: a
file can so run any code. Here torch's unpickler is held to tensors (`TORCH_FORCE_WEIGHTS_ONLY_LOAD`), and a file with
libraries, pickled objects or computed dimensions is refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive import constants
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from bitwright.hw_constraints.backends.base import TensorSpec, one_line
from bitwright.quant.errors import InputError

_FORCE_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_MODEL = "model"  # the name under which torch.export.save stores its only program
_EXPRESSION = re.compile(rb'"expr_str"\s*:\s*"((?:[^"\\]|\\.)*)"')
# What a dimension that is open, and nothing more, is written as: Symbol('s0', positive=True, integer=True).
_PLAIN_SYMBOL = re.compile(rb"Symbol\('[a-z]+\d+'(, [a-z]+=(True|False))*\)|Integer\(\d+\)|\d+")


def read_pt2(path: Path, device: str = "cpu") -> tuple[Callable[..., Any], tuple[TensorSpec, ...]]:
    """The program on a device as a callable that takes its inputs by name, and what they are.

    Raises:
        InputError: torch cannot read the file, or it holds what would run code.
    """
    program = _load(path)
    if device != "cpu":
        program = move_to_device_pass(program, device)
    module = program.module(check_guards=False)
    inputs = tuple(_tensor_spec(name, program) for name in program.graph_signature.user_inputs)
    names = [spec.name for spec in inputs]
    structure = program.call_spec.in_spec

    def forward(**tensors: torch.Tensor) -> Any:
        args, kwargs = torch.utils._pytree.tree_unflatten([tensors[name] for name in names], structure)
        return module(*args, **kwargs)

    forward.__name__ = path.name
    return forward, inputs


def _load(path: Path) -> torch.export.ExportedProgram:
    try:
        with PT2ArchiveReader(str(path)) as archive:
            _check_archive(path, archive)
        with _tensors_only():
            programs = load_pt2(str(path)).exported_programs
    except InputError:
        raise
    except Exception as error:  # torch raises anything from a damaged file
        raise InputError(f"{path}: torch cannot load it: {one_line(error)}") from error
    if _MODEL not in programs:
        raise InputError(f"{path}: holds no exported program; write it with torch.export.save")
    return programs[_MODEL]


def _check_archive(path: Path, archive: PT2ArchiveReader) -> None:
    """Refuses what would run code when it is loaded.

    Raises:
        InputError: there is such a thing.
    """
    prefixes = (constants.CUSTOM_OBJ_FILENAME_PREFIX, constants.OPAQUE_OBJ_FILENAME_PREFIX)
    for name in archive.get_file_names():
        if name.startswith(constants.AOTINDUCTOR_DIR):
            raise InputError(f"{path}: holds a compiled library ({name}); give the file of torch.export.save")
        if name.rsplit("/", 1)[-1].startswith(prefixes):
            raise InputError(f"{path}: holds a pickled object ({name}): unpickling it can run code")
        if name.startswith(constants.MODELS_DIR):
            for text in _EXPRESSION.findall(archive.read_bytes(name)):
                if not _PLAIN_SYMBOL.fullmatch(text):
                    expression = text.decode(errors="replace")
                    raise InputError(f"{path}: has the computed dimension {expression!r}; export it with fixed shapes")


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Holds `torch.load` to tensors, also where torch itself asks for more."""
    before = os.environ.get(_FORCE_TENSORS_ONLY)
    os.environ[_FORCE_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_TENSORS_ONLY]
        else:
            os.environ[_FORCE_TENSORS_ONLY] = before


def _tensor_spec(name: str, program: torch.export.ExportedProgram) -> TensorSpec:
    node = next(node for node in program.graph.nodes if node.name == name)
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        raise InputError(f"input {name!r} of the exported program is {type(value).__name__}; only tensors can be given")
    shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=shape)
