"""The scheme that a recipe asks for: the target's own, with the recipe's replacements where the target runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bitwright.experiments.recipe import QuantizeOverride, Recipe
from bitwright.experiments.recipe_data import Calibrate
from bitwright.experiments.recipe_training import Spec
from bitwright.hw_constraints.target import Target
from bitwright.quant.errors import InputError, suggestion
from bitwright.quant.formats import IntFormat, get_format
from bitwright.quant.graph import Graph
from bitwright.quant.scheme import Granularity, Override, QParamsSpec, QuantScheme, ScaleKind
from bitwright.quant.yaml_lines import KeyPath, dotted

_SHOWN = 12  # modules in a message


class RefusedSettingError(InputError):
    """The target does not run what the recipe asks for; `path` is the recipe's key."""

    def __init__(self, path: KeyPath, value: Any, target: Target, accepted: str) -> None:
        super().__init__(f"{dotted(path)} = {value!r}; target {target.id!r} accepts {accepted}")
        self.path = path


def scheme_of(recipe: Recipe, target: Target, *, section: str = "quantize") -> QuantScheme:
    """Compiles a recipe's `quantize` (or `qat`) section against its target.

    Raises:
        RefusedSettingError: a format, symmetry or granularity that no permitted one contains.
    """
    asked = getattr(recipe, section)
    base = target.scheme()
    numerics = target.numerics
    activations = _with_observer(base.activations, recipe.calibrate)
    scheme = replace(
        base,
        activations=_applied(asked.activations, activations, numerics.activations, target, (section, "activations")),
        weights=_applied(asked.weights, base.weights, numerics.weights, target, (section, "weights")),
        operator_weights=MappingProxyType(
            {
                op: _where_permitted(asked.weights, spec, numerics.weights_of(op))
                for op, spec in base.operator_weights.items()
            }
        ),
    )
    overrides = [
        _override(each, scheme, target, ("quantize", "overrides", index))
        for index, each in enumerate(recipe.quantize.overrides)
    ]
    return scheme.with_overrides(*overrides)


def require_overrides_select(recipe: Recipe, graph: Graph) -> None:
    """Refuses an override that selects nothing in the network: most likely its name is wrong.

    Raises:
        InputError: there is one; names the nearest module.
    """
    modules = sorted({node.module_path for node in graph.nodes if node.module_path})
    operators = sorted({node.op for node in graph.nodes})
    for index, asked in enumerate(recipe.quantize.overrides):
        override = Override(module=asked.module, operator=asked.operator)
        if any(override.selects(module_path=node.module_path, operator=node.op) for node in graph.nodes):
            continue
        key = dotted(("quantize", "overrides", index, "module" if asked.module else "operator"))
        named, choices = asked.module or asked.operator, modules if asked.module else operators
        some = ", ".join(choices[:_SHOWN]) + (f" and {len(choices) - _SHOWN} more" if len(choices) > _SHOWN else "")
        raise InputError(
            f"{key} = {named!r}: selects nothing in the network; it has {some}{suggestion(named, choices)}"
        )


def _with_observer(spec: QParamsSpec, asked: Calibrate) -> QParamsSpec:
    if asked.observer is None:
        return spec
    return replace(spec, observer=asked.observer, observer_arguments=MappingProxyType(dict(asked.observer_arguments)))


def _override(asked: QuantizeOverride, scheme: QuantScheme, target: Target, path: KeyPath) -> Override:
    permitted = target.numerics.weights_of(asked.operator) if asked.operator else target.numerics.weights
    weights = activations = None
    if asked.weights is not None:
        weights = _applied(asked.weights, scheme.weights, permitted, target, (*path, "weights"))
    if asked.activations is not None:
        own = target.numerics.activations
        activations = _applied(asked.activations, scheme.activations, own, target, (*path, "activations"))
    return Override(
        module=asked.module,
        operator=asked.operator,
        keep_float=asked.keep_float,
        weights=weights,
        activations=activations,
        origin=f"the recipe's {dotted(path)}",
    )


def _applied(
    asked: Spec, base: QParamsSpec, permitted: Sequence[QParamsSpec], target: Target, path: KeyPath
) -> QParamsSpec:
    """`base` with what was asked for in its place."""
    start = base
    if asked.format is not None:
        # A permitted format brings its own symmetry and granularity along.
        own = [each for each in permitted if each.format.name == asked.format]
        start = replace(own[0], observer=base.observer, observer_arguments=base.observer_arguments) if own else base
    spec = _replaced(asked, start)
    if spec is not None and any(is_within(spec, each) for each in permitted):
        return spec
    key, value = next((k, v) for k, v in asked.model_dump(exclude_none=True).items() if not k.startswith("observer"))
    raise RefusedSettingError((*path, key), value, target, "; ".join(dict.fromkeys(map(spelled, permitted))))


def _where_permitted(asked: Spec, base: QParamsSpec, permitted: Sequence[QParamsSpec]) -> QParamsSpec:
    """An operator type with weights of its own follows as far as it can, and else keeps its own format."""
    spec = _replaced(asked, base)
    if spec is not None and any(is_within(spec, each) for each in permitted):
        return spec
    observers = Spec(observer=asked.observer, observer_arguments=asked.observer_arguments)
    return _replaced(observers, base) or base


def _replaced(asked: Spec, base: QParamsSpec) -> QParamsSpec | None:
    """`base` with the replacements, None when they contradict each other (a float format with a zero point)."""
    changes: dict[str, Any] = asked.model_dump(exclude_none=True)
    if "format" in changes:
        changes["format"] = get_format(changes["format"])
    if "granularity" in changes:
        changes["granularity"] = Granularity(changes["granularity"])
        if changes["granularity"] is not Granularity.PER_BLOCK:
            changes.setdefault("block_size", None)
    if "scale_kind" in changes:
        changes["scale_kind"] = ScaleKind(changes["scale_kind"])
    if "observer_arguments" in changes:
        changes["observer_arguments"] = MappingProxyType(changes["observer_arguments"])
    try:
        return replace(base, **changes)
    except ValueError:
        return None


def is_within(spec: QParamsSpec, permitted: QParamsSpec) -> bool:
    """Whether hardware that runs `permitted` runs `spec`, too, because its codes and scales are among those.

    A narrower integer of the same signedness is stored in the wider one; symmetric codes are asymmetric ones with
    zero point 0.
    """
    return (
        _format_within(spec, permitted)
        and (spec.symmetric or not permitted.symmetric)
        and spec.has_scales_within(permitted)
    )


def _format_within(spec: QParamsSpec, permitted: QParamsSpec) -> bool:
    one, other = spec.format, permitted.format
    if isinstance(one, IntFormat) and isinstance(other, IntFormat):
        return one.signed == other.signed and one.bits <= other.bits
    return one == other


def spelled(spec: QParamsSpec) -> str:
    """A spec in words: `int8 symmetric per_channel`."""
    symmetry = "symmetric" if spec.symmetric else "asymmetric"
    size = f" of {spec.block_size}" if spec.block_size else ""
    scale = f" {spec.scale_kind}" if spec.scale_kind is not ScaleKind.FLOAT32 else ""
    return f"{spec.format.name} {symmetry} {spec.granularity}{size}{scale}{' dynamic' if spec.dynamic else ''}"
