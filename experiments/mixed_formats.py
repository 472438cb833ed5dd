"""What a recipe's `quantize.mixed` asks for: formats that the target permits, costs, budgets as shares or amounts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitwright.experiments.mixed_amount import amount
from bitwright.experiments.recipe import Mixed, Recipe
from bitwright.experiments.scheme_settings import RefusedSettingError, is_within, spelled
from bitwright.hw_constraints.target import Capability, Target
from bitwright.nas.block_formats import BLOCK_FORMATS, apply_block_formats
from bitwright.nas.costs import weight_bytes
from bitwright.quant.errors import InputError, unknown
from bitwright.quant.graph import Graph
from bitwright.quant.mixed_precision import FLOAT, Cost, LayerFormat, MixedSearch, Problem
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import QParamsSpec, QuantScheme
from bitwright.quant.yaml_lines import dotted

WHERE = ("quantize", "mixed")


def mixed_problem(asked: Mixed, graph: Graph, scheme: QuantScheme, target: Target) -> Problem:
    """The choices: the recipe's formats as the target keeps them.

    Raises:
        InputError: an unknown format, or one that the target does not permit.
    """
    chosen = layer_formats(asked.formats, scheme, target)
    looked_at = [LayerFormat(name="own")] * (not any(each.is_own for each in chosen))
    looked_at += [FLOAT] * (not any(each.is_float for each in chosen))
    return Problem(graph=graph, scheme=scheme, formats=(*chosen, *looked_at), allowed=asked.formats)


def layer_formats(
    names: Sequence[str], scheme: QuantScheme, target: Target, *, where: tuple[str, ...] = WHERE
) -> list[LayerFormat]:
    """Formats by name, as the target keeps them.

    Args:
        names: of the section's `formats`.
        scheme: what they are exceptions to.
        target: that has to permit them.
        where: the section, for messages.

    Raises:
        InputError: an unknown format, or one that the target does not permit.
    """
    return [_format(name, (*where, "formats", index), scheme, target) for index, name in enumerate(names)]


def _format(name: str, path: tuple[str | int, ...], scheme: QuantScheme, target: Target) -> LayerFormat:
    if name not in BLOCK_FORMATS:
        raise unknown(f"number format of {dotted(path[:-1])}", name, BLOCK_FORMATS)
    added = apply_block_formats(scheme, target, {"*": name}).overrides[len(scheme.overrides) :]
    if not added:
        return LayerFormat(name=name)
    numerics = target.numerics
    if added[0].keep_float and not numerics.float_formats:
        raise RefusedSettingError(path, name, target, "; ".join(dict.fromkeys(map(spelled, numerics.weights))))
    _require_permitted(added[0].weights, numerics.weights, name, target, path)
    _require_permitted(added[0].activations, numerics.activations, name, target, path)
    return LayerFormat(
        name=name, weights=added[0].weights, activations=added[0].activations, is_float=added[0].keep_float
    )


def _require_permitted(
    spec: QParamsSpec | None,
    permitted: Sequence[QParamsSpec],
    name: str,
    target: Target,
    path: tuple[str | int, ...],
) -> None:
    if spec is not None and not any(is_within(spec, each) for each in permitted):
        raise RefusedSettingError(path, name, target, "; ".join(dict.fromkeys(map(spelled, permitted))))


def mixed_costs(asked: Mixed, recipe: Recipe, target: Target) -> list[Cost]:
    """What is limited or made small, each with the way to find it out.

    Raises:
        InputError: neither a table nor a cost model knows latency here, or no model knows energies; or a share of the
            way from float is asked for where nothing runs in float, so that nothing is known of that end.
    """
    for name, unit in (("latency", "ms"), ("energy", "uJ")):
        value = getattr(asked.budget, name)
        if isinstance(value, float) and not target.numerics.float_formats:
            raise InputError(
                f"quantize.mixed.budget.{name} = {value:g} is a share of the way from float, and {target.id!r} has no "
                f"floating point; give an amount, such as 0.5{unit}"
            )
    names = [name for name in ("latency", "size", "energy") if getattr(asked.budget, name) is not None]
    if asked.min_sqnr_db is not None and asked.minimise not in names:
        names.append(asked.minimise)
    return [cost_of(name, recipe, target) for name in names]


def cost_of(name: str, recipe: Recipe, target: Target, *, where: tuple[str, ...] = WHERE) -> Cost:
    """What a network costs under a plan.

    Args:
        name: `latency`, by the first of `predict.tables` or else by the target's cost model; `size` or `energy`.
        recipe: names the tables.
        target: has the cost model.
        where: the section that asks, for messages.

    Raises:
        InputError: nothing knows it.
    """
    known = {"latency": _latency, "size": _size, "energy": _energy}
    return known[name](recipe, target, f"{dotted(where)}.budget")


def _size(recipe: Recipe, target: Target, key: str) -> Cost:
    return Cost(name="size", unit="MB", of=lambda graph, plan: weight_bytes(graph, plan) / 1e6, origin="counted")


def _latency(recipe: Recipe, target: Target, key: str) -> Cost:
    if recipe.predict.tables:
        from bitwright.nas.latency import predicted_latency

        predicted = predicted_latency(Path(recipe.predict.tables[0]))
        return Cost(name="latency", unit="ms", of=lambda graph, plan: predicted(graph, plan).latency_ms)
    _require_model(target, f"{key}.latency", "predict.tables = [FILE] brings a table of `bitwright measure kernels`")

    def modelled_ms(graph: Graph, plan: QuantPlan) -> float:
        from bitwright.hw_constraints.modelled_time import modelled_time

        found = modelled_time(graph, target, plan)
        if found is None:
            raise InputError(f"{key}.latency: the network cannot be lowered to target {target.id!r}")
        return found.us / 1e3

    return Cost(name="latency", unit="ms", of=modelled_ms)


def _energy(recipe: Recipe, target: Target, key: str) -> Cost:
    _require_model(target, f"{key}.energy", "leave it out")

    def modelled_uj(graph: Graph, plan: QuantPlan) -> float:
        from bitwright.hw_constraints.cost.estimate import estimate
        from bitwright.hw_constraints.lower.lowering import lower

        found = estimate(lower(graph, target, plan=plan)).energy_uj
        if found is None:
            raise InputError(f"{key}.energy: target {target.id!r} gives no energies; leave it out")
        return found

    return Cost(name="energy", unit="µJ", of=modelled_uj)


def _require_model(target: Target, key: str, instead: str) -> None:
    if Capability.COST not in target.capabilities:
        raise InputError(f"{key}: target {target.id!r} has no cost model; {instead}")


def limits_of(asked: Mixed, search: MixedSearch) -> dict[str, float]:
    """Each budget in the unit of its cost: a share of the way, or an amount.

    Raises:
        InputError: an amount without a unit that fits.
    """
    found = {}
    for name in search.costs:
        value = getattr(asked.budget, name)
        if value is not None:
            found[name] = search.at_share(name, value) if isinstance(value, float) else amount(name, value)
    return found
