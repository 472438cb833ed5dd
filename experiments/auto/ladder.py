"""The ladder: ways to quantize, each a change of the recipe, in the order of what they cost.

What costs nothing on the device comes first, the quickest of it first of all: ranges, biases, channels, rounding. What
makes the network slower or larger (layers in more bits) comes last. A rung changes the best recipe so far, so methods
add up where that helps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.hw_constraints.target import Capability, Target
from bitwright.quant.formats import IntFormat
from bitwright.quant.observers import OBSERVERS
from bitwright.quant.reconstruct import ROUNDINGS

if TYPE_CHECKING:
    from bitwright.quant.captured_model import CapturedModel
    from bitwright.quant.scheme import QuantScheme

Changes = dict[str, Any]
# Half the noise power each: 3 dB.
_MORE_DB = (3.0, 6.0, 9.0, 12.0)
_FINE_BITS = 8  # AWQ is for weights in fewer (section 3 of Lin et al. 2023, arXiv:2306.00978)
# In the order of what they cost (row `rounding_methods`).
ROUNDING_RUNGS = {
    "gptq": "weights rounded in view of their inputs, each column making up for those before it",
    "adaround": "which weights are rounded up learned by gradient descent, layer by layer",
    "brecq": "which weights are rounded up learned by gradient descent, block by block",
}
# Ranges for other trade-offs between clipping and rounding; `moving_average` forgets, which helps training only.
_OBSERVERS = ("mse", "percentile", "min_max", "entropy")


@dataclass(frozen=True)
class Subject:
    """What is quantized.

    Attributes:
        recipe: as the user gave it.
        target: its target.
        capture: makes the captured network, when a rung must look at it.
    """

    recipe: Recipe
    target: Target
    capture: Callable[[], CapturedModel]

    @cached_property
    def captured(self) -> CapturedModel:
        """The network, captured once."""
        return self.capture()

    @cached_property
    def scheme(self) -> QuantScheme:
        """The formats that the recipe asks for."""
        return scheme_of(self.recipe, self.target)


@dataclass(frozen=True)
class Best:
    """The try with the least noise so far, of those that cost nothing on the device; before the first, the recipe."""

    recipe: Recipe
    sqnr_db: float = -math.inf
    worst_activation: str = ""
    worst_weight: str = ""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One method.

    Attributes:
        name: short.
        what: it does.
        why: it comes next, from the best try so far.
        changes: of the recipe, by dotted keys.
        useless: why it can do nothing here; empty when it can.
        costs_on_device: it makes the network slower or larger; such rungs do not add up, each starts from the best
            without them.
    """

    name: str
    what: str
    why: Callable[[Best], str]
    changes: Callable[[Best], Changes]
    useless: Callable[[], str] = lambda: ""
    costs_on_device: bool = False


def ladder(subject: Subject) -> Iterator[Rung]:
    """All rungs, the cheapest first."""
    yield Rung(
        name="nearest",
        what="the target's own ranges, weights rounded to nearest",
        why=lambda best: "the cheapest there is",
        changes=_setting(plain(subject.recipe)),
    )
    yield Rung(
        name="bias_correction",
        what="each layer's mean error taken off its bias",
        why=lambda best: "costs 16 forwards and nothing on the device",
        changes=_setting({"quantize.bias_correction": True}),
        useless=lambda: _without_layers(subject),
    )
    yield from _observers(subject)
    yield Rung(
        name="equalization",
        what="channels brought to like ranges before quantization, errors weighed by what they do to the results",
        why=lambda best: _and("costs gradients of 16 samples and nothing on the device", best.worst_weight),
        changes=_setting({"quantize.equalization": True}),
        useless=lambda: _without_spaces(subject),
    )
    for name, what, useless in (
        ("smoothquant", "loud channels of activations made columns of weights", _without_norms),
        ("awq", "channels that activations make salient given finer weights", _without_coarse_products),
    ):
        yield Rung(
            name=name,
            what=what,
            why=lambda best: _and("costs a look at 64 samples and nothing on the device", best.worst_activation),
            changes=_setting({"quantize.prepare": [name]}),
            useless=partial(useless, subject),
        )
    for name, what in ROUNDING_RUNGS.items():
        if name not in ROUNDINGS.names():
            continue
        yield Rung(
            name=name,
            what=what,
            why=lambda best: _and("costs a walk through the network and nothing on the device", best.worst_weight),
            changes=_setting({"quantize.rounding": name}),
            useless=lambda: _without_layers(subject),
        )
    yield from _mixed(subject)


def _and(cost: str, worst: str) -> str:
    return f"{cost}; {worst}" if worst else cost


def _setting(changes: Changes) -> Callable[[Best], Changes]:
    return lambda best: changes


def _quieter(decibels: float, cost: str, formats: tuple[str, ...]) -> Callable[[Best], Changes]:
    def changes(best: Best) -> Changes:
        goal = round(best.sqnr_db + decibels, 1)
        return {"quantize.mixed": {"min_sqnr_db": goal, "minimise": cost, "formats": list(formats), "front": 0}}

    return changes


def plain(recipe: Recipe) -> Changes:
    """Everything off that the ladder tries."""
    return {
        "quantize.bias_correction": False,
        "quantize.equalization": False,
        "quantize.prepare": [],
        "quantize.rounding": None,
        "quantize.mixed": None,
        "evaluate.held_out": True,
    }


def changed(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with other values for some keys, checked again."""
    document = recipe.model_dump()
    for key, value in changes.items():
        *path, last = key.split(".")
        holder = document
        for step in path:
            holder = holder[step]
        holder[last] = value
    return Recipe.model_validate(document)


def _observers(subject: Subject) -> Iterator[Rung]:
    own = subject.scheme.activations.observer
    fixed = not subject.scheme.activations.dynamic
    for name in _OBSERVERS:
        if name == own or name not in OBSERVERS.names():
            continue
        yield Rung(
            name=f"observer {name}",
            what=f"ranges of activations by {name} instead of {own}",
            why=lambda best: _and("costs one calibration and nothing on the device", best.worst_activation),
            changes=_setting({"calibrate.observer": name, "calibrate.observer_arguments": {}}),
            useless=lambda: "" if fixed else "scales of activations follow the data; there are no ranges to choose",
        )


def _without_layers(subject: Subject) -> str:
    graph = subject.captured.graph
    has = any(graph.is_layer(node) and node.op in subject.scheme.quantized_operators for node in graph.nodes)
    return "" if has else "the network has no layer whose weights are quantized"


def _without_spaces(subject: Subject) -> str:
    from bitwright.quant.channel_spaces import channel_spaces
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    spaces = channel_spaces(fold_batch_norm(subject.captured).graph)
    return "" if spaces else "no two layers are connected so that channels can be scaled in one and back in the next"


def _without_norms(subject: Subject) -> str:
    has = any(node.op in ("layer_norm", "rms_norm") for node in subject.captured.graph.nodes)
    return "" if has else "no layer norm in front of linear layers could take the scales up for nothing"


def _without_coarse_products(subject: Subject) -> str:
    fmt = subject.scheme.weights.format
    if not isinstance(fmt, IntFormat) or fmt.bits >= _FINE_BITS:
        return f"weights in {fmt.name} are fine enough for every channel"
    return _without_norms(subject)


def _mixed(subject: Subject) -> Iterator[Rung]:
    """More bits for the layers that need them; what that costs is made as small as it can be."""
    from bitwright.nas.block_formats import apply_block_formats

    scheme, target = subject.scheme, subject.target
    own = [
        name
        for name in ("int8", "int4", "fp8", "int16")
        if apply_block_formats(scheme, target, {"*": name}).overrides == scheme.overrides
    ]
    timed = bool(subject.recipe.predict.tables) or Capability.COST in target.capabilities
    wide = any(each.format.name == "int16" for each in target.numerics.activations)
    finer = ["int8"] * (own[:1] == ["int4"]) + ["int16"] * (wide and timed and own[:1] != ["int16"])
    formats = (*own[:1], *finer, "float32")
    cost = "latency" if timed else "size"
    for more in _MORE_DB:
        yield Rung(
            name=f"mixed +{more:g} dB",
            what=f"{' or '.join(formats[1:])} for the layers that need it, the least {cost} for {more:g} dB more SQNR",
            why=lambda best: _and("makes the network slower or larger, so it comes last", best.worst_activation),
            changes=_quieter(more, cost, formats),
            useless=lambda: "" if own else "the scheme's own formats have no name in quantize.mixed.formats",
            costs_on_device=True,
        )
