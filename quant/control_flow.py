"""What in the source of a `forward` depends on the values of tensors, or keeps state that a graph cannot hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.capture_failure import CaptureFailure
from bitwright.quant.control_flow_reader import FunctionReader, Hazard, Held, first_use
from bitwright.quant.graph import SourceLine

__all__ = ["ADVICE", "ControlFlow", "Hazard", "located", "read_forward", "read_modules"]

ADVICE = {
    Hazard.BRANCH: "compute both and choose with torch.where, or decide outside of the network",
    Hazard.LOOP: "loop a fixed number of times and mask the results that are not wanted",
    Hazard.SCALAR: "keep it a tensor, or read the number from a Python attribute that is known beforehand",
    Hazard.MASKED: "compute for all elements and choose with torch.where(mask, new, old)",
    Hazard.SHAPE: "keep a fixed number of results, such as the top k, and say which of them are valid",
    Hazard.COUNTER: "count in a registered buffer: self.register_buffer('count', torch.zeros((), dtype=torch.int64))",
    Hazard.STATE: "what outlives a call belongs into a buffer: self.register_buffer(name, tensor)",
    Hazard.ARGUMENT: "return the new value as an output, or work on a copy",
}
# State and arguments are about what a call leaves behind, not about what its values decide.
_OF_VALUES = frozenset({Hazard.BRANCH, Hazard.LOOP, Hazard.SCALAR, Hazard.MASKED, Hazard.SHAPE})


@dataclass(frozen=True, kw_only=True)
class ControlFlow:
    """A line of the user's own code that stands in the way of one static graph."""

    hazard: Hazard
    source: SourceLine

    def failure(self) -> CaptureFailure:
        """The same as a reason why a module is not captured, for the linter."""
        return CaptureFailure(
            reason=str(self.hazard),
            source=self.source,
            suggestion=ADVICE[self.hazard],
            data_dependent=self.hazard in _OF_VALUES,
        )


def read_forward(
    module: torch.nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> tuple[ControlFlow, ...]:
    """The lines of a module's `forward`, and of the helpers that it calls, that a static graph cannot follow.

    Args:
        module: whose `forward`; its submodules are not entered.
        args: example arguments, which tell tensors from numbers; without them what is annotated as a Python number is
            one, and everything else a tensor.
        kwargs: keyword arguments likewise.

    Returns:
        Each line once for each hazard, in the order of the source; nothing when there is no source to read.
    """
    reader = FunctionReader(module)
    reader.read(type(module).forward, _arguments(module, args, kwargs or {}))
    return _sorted(ControlFlow(hazard=hazard, source=source) for hazard, source in reader.found)


def read_modules(model: torch.nn.Module, hazards: Iterable[Hazard]) -> tuple[ControlFlow, ...]:
    """The given hazards in the user's own classes anywhere in the model."""
    wanted = frozenset(hazards)
    one_of_each = {type(module): module for module in model.modules()}
    return _sorted(each for module in one_of_each.values() for each in read_forward(module) if each.hazard in wanted)


def located(failure: CaptureFailure, model: torch.nn.Module, hazard: Hazard) -> CaptureFailure:
    """A failure that came without a line, with the first line of the model's source that does such a thing.

    Of several lines, one that writes a name which the failure speaks of (`self.past`) is preferred. Where none does it,
    because a submodule does it in another method than `forward`, the line that first names that submodule is meant.
    """
    if failure.source is not None:
        return failure
    lines = [each.source for each in read_modules(model, [hazard])]
    if not lines:
        return replace(failure, source=first_use(model, re.findall(r"self\.(\w+)", failure.reason)))
    named = [line for line in lines if any(word in failure.reason for word in re.findall(r"self\.\w+", line.text))]
    return replace(failure, source=(named or lines)[0])


def _sorted(found: Iterable[ControlFlow]) -> tuple[ControlFlow, ...]:
    return tuple(sorted(set(found), key=lambda each: (each.source.file, each.source.line, each.hazard)))


def _arguments(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Held]:
    parameters = inspect.signature(module.forward).parameters
    held = {name: _annotated(each.annotation) for name, each in parameters.items()}
    if args or kwargs:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        held |= {name: held_by(value) for name, value in bound.items()}
    return held


def held_by(value: Any) -> Held:
    """What a live value is; of a container the greatest of what it holds."""
    tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return max((Held.MASK if each.dtype is torch.bool else Held.TENSOR for each in tensors), default=Held.PLAIN)


def _annotated(annotation: Any) -> Held:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return Held.PLAIN if text.split("[")[0] in {"int", "float", "bool", "str"} else Held.TENSOR
