"""The network that a command names, with example arguments: from an entry, its function's own or of given shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(\w+))?")


def entry_network(entry: str, inputs: Sequence[str]) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """Calls an entry that returns a network, or a network and the arguments of one run: `(model, (image, pose))`.

    Args:
        entry: `package.module:function`.
        inputs: shapes of example inputs, as `1x3x224x224` or `1x20:int64`; they come before the entry's own arguments.

    Raises:
        InputError: the entry returns something else, there are no arguments, or a shape is none.
    """
    import torch

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
    dtype = getattr(torch, match.group(2) or "float32", None) if match else None
    if match is None or not isinstance(dtype, torch.dtype):
        raise InputError(
            f"--input = {text!r}; expected a shape with an optional type, such as 1x3x224x224 or 1x20:int64"
        )
    shape = [int(size) for size in match.group(1).split("x")]
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
