"""Replays a quantization plan in the user's own module tree, and takes it out again.

Layers with weights change their class in place, batch norms behind them too; activations are fake-quantized by hooks
where a module returns them and by call site where a function does. Names, parameters and the optimizer's view of the
model stay; what is added hangs in one child, `qat_quantizers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitwright.qat.call_sites import Boundary, CallSite, CallSites, Key, Rewrite, Site, Tap
from bitwright.qat.calls import CallCounter
from bitwright.qat.entries import Beginning, Entry, Forward, LastForward
from bitwright.qat.layers import (
    EagerForward,
    FoldedNorm,
    FoldedWeight,
    ScheduledNorm,
    in_place_class,
    restore_class,
    swap_class,
)
from bitwright.qat.locate import FunctionCall, Location, ModuleResult, watch
from bitwright.qat.quantizer import DynamicQuantizer, Quantizer, Quantizers
from bitwright.qat.rectifiers import Resting, can_rest, rectifier_of
from bitwright.qat.shards import nothing_like, ranks, whole, widest_of_ranks
from bitwright.qat.written_out import WrittenOut
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef

CHILD = "qat_quantizers"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with weights that is swapped in place, and the parameters of the graph that it computes with."""

    module: nn.Module
    folded: FoldedWeight
    weight: TensorRef
    bias: TensorRef | None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that is put into the user's module tree.

    Attributes:
        layers: the layers with weights.
        sites: each activation that is quantized where it arises, with the place.
        operands: constants that single calls read quantized: (place, constant, what it is replaced by).
        written_out: calls that run as the parts that the plan has of them.
        entries: where the captured networks begin: at the model, or at each region that trains; none lies in another.
        by_ref: the quantizer of every tensor of the plan whose scale is its own.
        dynamic: that of every other.
        quantizers: all of them, as the module that is hung into the model.
        tap: hands the sites' results to whoever looks.
    """

    layers: tuple[Layer, ...]
    sites: tuple[tuple[Location, Site], ...]
    operands: tuple[tuple[FunctionCall, TensorRef, Rewrite], ...]
    written_out: tuple[tuple[FunctionCall, WrittenOut], ...]
    entries: tuple[Entry, ...]
    by_ref: Mapping[TensorRef, Quantizer]
    dynamic: Mapping[TensorRef, DynamicQuantizer]
    quantizers: Quantizers
    tap: Tap


class Replay:
    """A plan in force in a module tree, between `attach` and `detach`."""

    def __init__(self, model: nn.Module, parts: Parts) -> None:
        self.model, self.parts = model, parts
        self.frozen = False
        self._handles: list[Any] = []
        self._swapped: list[tuple[nn.Module, type]] = []
        self.last_forward: LastForward = []
        self._own_forward = vars(model).get("forward")

    @property
    def is_attached(self) -> bool:
        """Whether the model computes in low precision."""
        return bool(self._handles)

    @contextlib.contextmanager
    def own_forward(self) -> Iterator[None]:
        """The model's forward as it was, without what has been put around it since, such as accelerate's autocast."""
        around = vars(self.model).pop("forward", None)
        if self._own_forward is not None:
            self.model.forward = self._own_forward
        try:
            yield
        finally:
            vars(self.model).pop("forward", None)
            if around is not None:
                self.model.forward = around

    def attach(self) -> None:
        """Puts everything in place."""
        self.model.add_module(CHILD, self.parts.quantizers)
        norms = {layer.folded.norm for layer in self.parts.layers}
        for layer in self.parts.layers:
            behaviour = in_place_class(layer.module)
            assert behaviour is not None  # else it would not be a layer
            self._swap(layer.module, behaviour)
            layer.module.folded = layer.folded  # type: ignore[assignment]
        for module in list(self.model.modules()):
            if isinstance(module, _BatchNorm):
                self._swap(module, FoldedNorm if module in norms else ScheduledNorm)
        self.freeze_batch_norm(self.frozen)
        mode = CallSites()
        boundaries = self._boundaries(mode)
        returned = self._returns()
        for module, boundary in boundaries.items():
            if boundary.operators:
                self._swap(module, EagerForward)
        counters = [
            *((module, boundary.counter) for module, boundary in boundaries.items()),
            *((module, each.counter) for module, each in returned.items()),
            *((layer.module, layer.folded.counter) for layer in self.parts.layers),
        ]
        for entry in self.parts.entries:
            inside = set(entry.module.modules())
            begin = Beginning(mode, [counter for module, counter in counters if module in inside], entry.inputs)
            self._handles.append(entry.module.register_forward_pre_hook(begin, prepend=True, with_kwargs=True))
        forward = Forward()
        self.last_forward = forward.last
        self._handles.append(self.model.register_forward_pre_hook(forward, prepend=True, with_kwargs=True))
        for module, result in returned.items():
            if (name := rectifier_of(module)) and not module._forward_hooks:  # else somebody sees its own result
                result.rectifier = name
                self._swap(module, Resting)
                module.returned = result  # type: ignore[assignment]
            self._handles.append(module.register_forward_hook(result))
        for module, boundary in boundaries.items():
            self._handles.append(module.register_forward_pre_hook(boundary.enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(boundary.leave, always_call=True))
        for module, result in returned.items():
            result.hooks = len(module._forward_hooks)

    def detach(self) -> None:
        """Takes everything out; the model computes in float with the weights as they are now."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module, behaviour in reversed(self._swapped):
            restore_class(module, behaviour)
            for name in ("folded", "frozen", "returned"):
                vars(module).pop(name, None)
        self._swapped.clear()
        delattr(self.model, CHILD)

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """From now on batch norms keep their statistics, and their layers compute with the folded weights."""
        self.frozen = frozen
        for module, _ in self._swapped:
            if isinstance(module, ScheduledNorm):
                thaws = module.frozen and not frozen
                module.frozen = frozen
                if frozen or thaws:
                    module.train(thaws and self.model.training)

    @torch.no_grad()
    def follow(self) -> None:
        """After a step: scales that do not learn follow the weights, and the range of what all processes have seen.

        Raises:
            InputError: an activation was not finite; names it. No range has moved then.
        """
        # Processes may have taken different ways through the model; each tells of every tensor, in one order.
        several = ranks() > 1
        quantizers = self.parts.quantizers.named()
        named = [(name, q) for name, q in quantizers if q.seen is not None or (several and q.observing)]
        told = widest_of_ranks([nothing_like(q.start) if q.seen is None else q.seen for _, q in named])
        pairs = zip(named, told, strict=True)
        seen = [(name, q, each) for (name, q), each in pairs if not bool(each[0] > each[1])]
        extremes = [each for _, _, each in seen]
        broken = [name for (name, _, _), each in zip(seen, extremes, strict=True) if not torch.isfinite(each).all()]
        if broken:
            for _, quantizer, _ in seen:
                quantizer.seen = None
            raise InputError(
                f"activation {broken[0]} is NaN or infinite in this step ({len(broken)} of {len(seen)} are); "
                "lower the learning rate or check the batch. The ranges are as they were"
            )
        following = [layer for layer in self.parts.layers if layer.folded.is_following]
        weights = [(layer, whole(layer.module.weight.detach())) for layer in following]  # type: ignore[operator]
        for layer, weight in weights:
            if not torch.isfinite(weight).all():
                raise InputError(f"weight {layer.weight} is NaN or infinite; go back to the last checkpoint")
        for (_, quantizer, _), each in zip(seen, extremes, strict=True):
            quantizer.observe(each)
        for layer, weight in weights:
            layer.folded.follow(weight)

    def _swap(self, module: nn.Module, behaviour: type) -> None:
        swap_class(module, behaviour)
        self._swapped.append((module, behaviour))

    def _returns(self) -> dict[nn.Module, _Returned]:
        """The hooks of modules whose result is quantized."""
        hooks: dict[nn.Module, _Returned] = {}
        for location, site in self.parts.sites:
            if isinstance(location, ModuleResult):
                hook = hooks.setdefault(location.module, _Returned(location.calls))
                hook.sites[location.call] = site
        return hooks

    def _boundaries(self, mode: CallSites) -> dict[nn.Module, Boundary]:
        """The hooks of modules that call quantized functions, and of those that run inside."""
        tables: dict[nn.Module, list[dict[Key, CallSite]]] = {}

        def site_at(location: FunctionCall) -> CallSite:
            calls = tables.setdefault(location.module, [{} for _ in range(location.calls)])
            return calls[location.call].setdefault(location.key, CallSite())

        for location, site in self.parts.sites:
            if isinstance(location, FunctionCall):
                site_at(location).results[site.ref.output] = site
        for location, ref, rewrite in self.parts.operands:
            site_at(location).operands[location.places[ref]] = rewrite
        for location, written in self.parts.written_out:
            site_at(location).instead = written
        operators = {module: {name for sites in calls for name, _ in sites} for module, calls in tables.items()}
        boundaries = watch(mode, operators)
        for module, calls in tables.items():
            boundaries[module].calls = calls
        return boundaries


class _Returned:
    """The forward hook of a module whose result is quantized."""

    def __init__(self, calls: int) -> None:
        self.sites: list[Site | None] = [None] * calls
        self.counter = CallCounter()
        self.rectifier, self.hooks = "", 0
        self._resting = ""

    def rests(self, module: nn.Module, x: torch.Tensor) -> bool:
        """Whether the module, a rectifier, leaves clipping to this hook; not when hooks of others see its result."""
        rounds = [site.quantizer for site in self.sites if site is not None]
        is_ours = len(module._forward_hooks) == self.hooks and len(rounds) == len(self.sites)
        rests = is_ours and all(can_rest(self.rectifier, each, x) for each in rounds)
        self._resting = self.rectifier if rests else ""
        return rests

    def __call__(self, module: nn.Module, args: Any, result: torch.Tensor) -> torch.Tensor:
        site = self.sites[self.counter.next(len(self.sites), module, args)]
        rested, self._resting = self._resting, ""
        return result if site is None else site(result, rested=rested)
