"""The network that a command names, with example arguments: from an entry, its function's own or of given shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.recipe_section import ENTRY
from bitwright.quant.errors import InputError, suggestion

if TYPE_CHECKING:
    import torch

_SHAPE = re.compile(r"([0-9]+(?:x[0-9]+)*)(?::(\w+))?")
_TYPES = ("float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


def entry_network(entry: str, inputs: Sequence[str]) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """Calls an entry that returns a network, or a network and the arguments of one run: `(model, (image, pose))`.

    Args:
        entry: `package.module:function`.
        inputs: shapes of example inputs, as `1x3x224x224` or `1x20:int64`; they come before the entry's own arguments.

    Raises:
        InputError: the entry returns something else, there are no arguments, or a shape is none.
    """
    import torch

    if not re.match(ENTRY, entry):
        raise InputError(f"MODEL = {entry!r}; expected package.module:function that returns the network")
    result = call_entry("MODEL", entry)
    network, args = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(network, torch.nn.Module):
        raise wrong_result("MODEL", entry, network, "a torch.nn.Module, or one with a tuple of arguments")
    if args is not None and not isinstance(args, tuple):
        raise wrong_result("MODEL", entry, args, "a tuple of arguments beside the network")
    if inputs:
        return network, tuple(map(_example, inputs))
    if args is None:
        raise InputError("--input is missing: the shape of an example input, such as --input 1x3x224x224")
    return network, args


def _example(text: str) -> Any:
    import torch

    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InputError(
            f"--input = {text!r}; expected a shape with an optional type, such as 1x3x224x224 or 1x20:int64"
        )
    type_name = match.group(2) or _TYPES[0]
    if type_name not in _TYPES:
        raise InputError(
            f"--input = {text!r}: type {type_name!r} is none of {', '.join(_TYPES)}{suggestion(type_name, _TYPES)}"
        )
    dtype = getattr(torch, type_name)
    shape = [int(size) for size in match.group(1).split("x")]
    try:
        return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
    except (RuntimeError, TypeError) as error:  # what torch raises where the memory, or its own 64 bits, do not suffice
        raise InputError(
            f"--input = {text!r}: {math.prod(shape):,} values do not fit into the memory of this machine; "
            "give a smaller shape"
        ) from error
