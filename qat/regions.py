"""What of a model trains in low precision: the whole of it, or, where Python decides on the data, its regions.

A region is a submodule that is one static graph (`quant.regions`). Which of them run may hang on the data, so as many
samples are looked at as it takes to see every module that any of them reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from bitwright.qat.batches import Arguments, joined
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.capture_failure import CaptureFailure
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.graph import SourceLine
from bitwright.quant.recording import run, signature
from bitwright.quant.regions import EagerModule, Region, find_regions

# Samples that are looked at for modules that the ones before them do not reach.
_SAMPLES = 64
# They are never called: who holds them reads what is in them.
_HOLDERS = (nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRegion:
    """A network that is planned, trained and deployed as one: the whole model, or a region of it.

    Attributes:
        path: of the module whose forward it is; empty for the model. Its tensors have it as their `region`.
        captured: in eval mode, with the first of `calls`.
        calls: the arguments of a call for each shape that the user's model calls it with.
    """

    path: str
    captured: CapturedModel
    calls: tuple[Arguments, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One for each of `calls`: the path, from the second on with a number (`head`, `head#2`)."""
        return tuple(self.path if number == 1 else f"{self.path}#{number}" for number in range(1, len(self.calls) + 1))


@dataclass(frozen=True, kw_only=True)
class FloatPart:
    """A module that trains in float, and why.

    Attributes:
        module_path: its place in the model; empty for the model itself, of which only `forward` is meant.
        module_type: its class.
        reason: what stood in the way.
        source: the line in the user's code; None where no line is to blame.
        suggestion: what to write instead; may be empty.
    """

    module_path: str
    module_type: str
    reason: str
    source: SourceLine | None = None
    suggestion: str = ""

    def __str__(self) -> str:
        where = f"{self.module_path or 'the model'} ({self.module_type})"
        line = f" ({self.source}: {self.source.text})" if self.source else ""
        return f"{where}: {self.reason}{line}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The regions of a model and what lies in none.

    Attributes:
        regions: one of the whole model, or several of which none lies in another.
        left_float: the rest.
    """

    regions: tuple[TrainedRegion, ...]
    left_float: tuple[FloatPart, ...] = ()


def find(model: nn.Module, samples: Sequence[Arguments]) -> Found:
    """The whole model where it can be captured, and else its regions.

    Args:
        model: the user's, in float; is left as it was.
        samples: arguments of its forward, a sample each; the model is captured on the first.

    Raises:
        InputError: neither the model nor any part of it can be captured; says where and why.
    """
    try:
        whole = capture(model, samples[0])
    except CaptureError as error:
        return _in_regions(model, samples, error.failure)
    return Found(regions=(TrainedRegion(path="", captured=whole, calls=(samples[0],)),))


def _in_regions(model: nn.Module, samples: Sequence[Arguments], failure: CaptureFailure) -> Found:
    by_path: dict[str, dict[str, Region]] = {}
    eager: dict[str, EagerModule] = {}
    telling, reached = _telling(model, samples)
    for args in telling:
        found = find_regions(model, args)
        for region in found.regions:
            if not any(_overlap(region.module_path, path) for path in by_path if path != region.module_path):
                shapes = by_path.setdefault(region.module_path, {})
                shapes.setdefault(signature(region.args, region.kwargs), region)
        eager |= {each.module_path: each for each in found.eager if each.module_path not in eager}
    order = [path for path, _ in model.named_modules() if path in by_path]
    regions, refused = [], []
    taken: set[nn.Module] = set()
    for path in order:
        trained = _as_one(model, path, list(by_path[path].values()), taken)
        if isinstance(trained, FloatPart):
            refused.append(trained)
        else:
            regions.append(trained)
            taken |= set(model.get_submodule(path).modules())
    floats = [
        *(
            _eager(each)
            for each in eager.values()
            if not any(_overlap(each.module_path, p, inside=True) for p in order)
        ),
        *refused,
        *_never_reached(model, reached, order),
    ]
    if not regions:
        parts = "".join(f"\n  {each}" for each in floats)
        raise InputError(
            "no part of this model can be captured, so nothing of it can train in low precision:"
            f"{parts}\n  {failure.suggestion}"
        )
    return Found(regions=tuple(regions), left_float=tuple(floats))


def _telling(model: nn.Module, samples: Sequence[Arguments]) -> tuple[list[Arguments], set[nn.Module]]:
    """The first sample and each that reaches a module that those before it do not; and all that is reached."""
    wanted = {module for module in model.modules() if next(module.parameters(recurse=False), None) is not None}
    reached: set[nn.Module] = set()
    telling: list[Arguments] = []

    def look(module: nn.Module, _args: Any) -> None:
        called.add(module)

    for args in samples[:_SAMPLES]:
        called: set[nn.Module] = set()
        handles = [module.register_forward_pre_hook(look) for module in model.modules()]
        try:
            run(model, args, {})
        finally:
            for handle in handles:
                handle.remove()
        if called - reached or not telling:
            telling.append(args)
            reached |= called
        if wanted <= reached:
            break
    return telling, reached


def _overlap(path: str, other: str, *, inside: bool = False) -> bool:
    """Whether one module lies in the other; with `inside`, whether the first is the second or lies in it."""
    mine, theirs = f"{path}.", f"{other}."
    return mine.startswith(theirs) or (not inside and theirs.startswith(mine))


def _as_one(model: nn.Module, path: str, shapes: list[Region], taken: set[nn.Module]) -> TrainedRegion | FloatPart:
    """One region of all shapes that a module is called with, when they are one network."""
    module = model.get_submodule(path)
    kind = type(module).__name__
    if shared := [name for name, each in module.named_modules() if each in taken]:
        inner = f"{path}.{shared[0]}".rstrip(".")
        return FloatPart(module_path=path, module_type=kind, reason=f"{inner} is part of another region as well")
    first = shapes[0].captured
    for other in shapes[1:]:
        again = capture(module, other.args, other.kwargs, region=path)
        if _operators(again) != _operators(first):
            reason = "it computes other operators for other shapes of its arguments"
            return FloatPart(module_path=path, module_type=kind, reason=reason)
    if shapes[0].name != path:  # it got its number in a sample where another shape came first
        first = capture(module, shapes[0].args, shapes[0].kwargs, region=path)
    calls = tuple(joined(each.args, dict(each.kwargs)) for each in shapes)
    return TrainedRegion(path=path, captured=first, calls=calls)


def _operators(captured: CapturedModel) -> list[Any]:
    return [(node.op, node.inputs, node.outputs) for node in captured.graph.nodes]


def _eager(module: EagerModule) -> FloatPart:
    failure = module.failures[0]
    advised = f"{failure.reason}; {failure.suggestion}" if failure.suggestion else failure.reason
    reason = "the values of tensors decide what runs" if failure.data_dependent else advised
    return FloatPart(
        module_path=module.module_path,
        module_type=module.module_type,
        reason=reason,
        source=failure.source,
        suggestion=failure.suggestion,
    )


def _never_reached(model: nn.Module, reached: set[nn.Module], regions: Sequence[str]) -> Iterator[FloatPart]:
    """Modules whose parameters no sample asks for; those inside a region are read by whoever holds them."""
    for path, module in model.named_modules():
        owns = next(module.parameters(recurse=False), None) is not None and not isinstance(module, _HOLDERS)
        if owns and module not in reached and not any(_overlap(path, each, inside=True) for each in regions):
            kind = type(module).__name__
            yield FloatPart(module_path=path, module_type=kind, reason="no calibration sample reaches it")
