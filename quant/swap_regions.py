"""Regions put back into the user's own running model, each computed by something else: quantized, or watched.

What is not captured stays the user's Python. A call whose arguments are those of a region is that region's; any other
call of the same module runs as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import Keywords
from bitwright.quant.errors import InputError, unknown
from bitwright.quant.preserve import preserved
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.recording import signature
from bitwright.quant.regions import Region
from bitwright.quant.scheme import QuantScheme

Forward = Callable[..., Any]
Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
_CALLS = 32  # of a region are enough to calibrate on


@contextmanager
def swapped(model: torch.nn.Module, regions: Sequence[Region], forwards: Mapping[str, Forward]) -> Iterator[None]:
    """The model with some regions computed by other functions, for as long as the context is open.

    Args:
        model: the user's; in eval mode, and afterwards as it was.
        regions: of this model.
        forwards: by the region's name; takes what the module's `forward` takes.

    Raises:
        InputError: there is no such region.
    """
    known = {region.name: region for region in regions}
    for name in forwards:
        if name not in known:
            raise unknown("region", name, known)
    by_path: dict[str, dict[str, Forward]] = {}
    for name, forward in forwards.items():
        spelled = signature(tuple(known[name].args), known[name].kwargs)
        by_path.setdefault(known[name].module_path, {})[spelled] = forward
    with ExitStack() as stack:
        stack.enter_context(preserved(model))
        model.eval()
        for path, choices in by_path.items():
            module = model.get_submodule(path)
            own = module.__dict__.get("forward")  # most modules have theirs from the class
            stack.callback(_restore, module, own)
            module.__dict__["forward"] = partial(_dispatch, module.forward, choices)
        yield


def _restore(module: torch.nn.Module, own: Any) -> None:
    del module.__dict__["forward"]
    if own is not None:
        module.__dict__["forward"] = own


def _dispatch(original: Forward, choices: Mapping[str, Forward], *args: Any, **kwargs: Any) -> Any:
    return choices.get(signature(args, kwargs), original)(*args, **kwargs)


def quantize_regions(
    model: torch.nn.Module, regions: Sequence[Region], scheme: QuantScheme, samples: Sequence[Arguments]
) -> dict[str, QuantizedModel]:
    """Quantizes each region, calibrated on what the user's model calls it with.

    Args:
        model: the user's.
        regions: of this model.
        scheme: for all of them.
        samples: arguments of the model's `forward`, positional ones and by name; not empty.

    Returns:
        By the region's name; those that these samples never call are left out.

    Raises:
        InputError: there is no sample, or a region cannot be quantized.
    """
    if not samples:
        raise InputError("regions are calibrated on what the model calls them with; give at least one sample")
    calls: dict[str, list[tuple[Any, ...]]] = {region.name: [] for region in regions}
    watching = {
        region.name: partial(_watched, calls[region.name], model.get_submodule(region.module_path).forward)
        for region in regions
    }
    with swapped(model, regions, watching), torch.no_grad():
        for args, kwargs in samples:
            model(*args, **kwargs)
    return {region.name: quantize(region.captured, scheme, seen) for region in regions if (seen := calls[region.name])}


def _watched(seen: list[tuple[Any, ...]], original: Forward, *args: Any, **kwargs: Any) -> Any:
    if len(seen) < _CALLS:
        copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        seen.append((*copied, Keywords(named)) if named else copied)
    return original(*args, **kwargs)
