"""The part of the quantize stage that chooses formats layer by layer, when the recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bitwright.experiments.mixed_formats import limits_of, mixed_costs, mixed_problem
from bitwright.experiments.mixed_picture import draw_mixed
from bitwright.experiments.mixed_result import FrontPoint, GroupChoice, MixedResult
from bitwright.experiments.recipe import Mixed
from bitwright.experiments.record import Figure
from bitwright.experiments.stage import Context
from bitwright.quant.calibrate import take
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.mixed_precision import Choice, MixedNetworks, MixedSearch
from bitwright.quant.mixed_precision.networks import decibels
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Override, QParamsSpec, QuantScheme

PICTURE = "mixed.png"


def mix_formats(
    context: Context, asked: Mixed, captured: CapturedModel, scheme: QuantScheme, data: Callable[[], Iterable[Any]]
) -> tuple[QuantScheme, MixedResult]:
    """Chooses a format for every layer and draws the picture.

    Networks that are compared are not equalized, whatever the recipe says: their weights come from several of them.

    Args:
        context: of the stage.
        asked: the recipe's `quantize.mixed`.
        captured: the network in float.
        scheme: what the recipe asks for apart from that.
        data: gives the calibration data anew at each call.

    Returns:
        The scheme with an override for each layer that is an exception to it, and what was found.

    Raises:
        InputError: a format, cost or budget that cannot be had; of a budget the nearest that can.
    """
    recipe, target, reference = context.recipe, context.bench.target, fold_batch_norm(captured)
    problem = mixed_problem(asked, reference.graph, scheme, target)

    def quantized(mixed: QuantScheme) -> QuantizedModel:
        return quantize(reference, mixed, data(), bias_correction=recipe.quantize.bias_correction)

    networks = MixedNetworks(problem, reference, quantized, take(reference, data(), asked.samples))
    search = MixedSearch(networks, mixed_costs(asked, recipe, target))
    context.console.say(f"    choosing formats of {len(problem.groups)} groups of layers")
    limits = limits_of(asked, search)
    try:
        if asked.min_sqnr_db is None:
            chosen = search.least_noise(limits)
        else:
            chosen = search.least_cost(asked.minimise, asked.min_sqnr_db, limits)
    except InputError as error:
        raise InputError(f"quantize.mixed: {error}") from error
    _require_codes(search, chosen)
    front = search.pareto(next(iter(search.costs)), asked.front) if asked.front else ()
    mixed = problem.mixed_scheme(chosen.formats)
    result = _result(search, chosen, limits, front, mixed.overrides[len(scheme.overrides) :])
    draw_mixed(result, context.folder / PICTURE)
    context.console.say(f"    {said(result)}")
    return mixed, result


def _require_codes(search: MixedSearch, chosen: Choice) -> None:
    """Refuses an assignment without any layer in codes; names the one layer that would cost the results least."""
    coded = [each.name for each in search.problem.formats if not each.is_float and each.name in search.problem.allowed]
    if any(name in coded for name in chosen.formats.values()):
        return
    alone = search.noise.table.alone
    group, name = min(((group, name) for group in chosen.formats for name in coded), key=lambda pair: alone[pair])
    nearest = decibels(search.noise.alone([group], name))
    raise InputError(
        f"quantize.mixed: only {' and '.join(sorted(set(chosen.formats.values())))} in every layer keeps what is asked "
        f"for, so nothing is left to quantize; the nearest that can be kept: {group} alone in {name}, results = "
        f"{nearest:.2f} dB; lower min_sqnr_db, or give a smaller budget"
    )


def said(result: MixedResult) -> str:
    """The choice in a line."""
    counts: dict[str, int] = {}
    for each in result.groups:
        counts[each.format] = counts.get(each.format, 0) + 1
    formats = ", ".join(f"{count} in {name}" for name, count in counts.items())
    costs = "; ".join(f"{name} {each.value:.4g} {each.unit} ({each.origin})" for name, each in result.costs.items())
    return f"{formats} (found by {result.found_by}); {costs}; {result.sqnr.value:.1f} dB SQNR"


def _result(
    search: MixedSearch,
    chosen: Choice,
    limits: dict[str, float],
    front: Iterable[Choice],
    overrides: Iterable[Override],
) -> MixedResult:
    problem, table, measured = search.problem, search.noise.table, search.noise.measured
    coded = [each.name for each in problem.formats if not each.is_float and each.name in problem.allowed]

    def figure(name: str, value: float) -> Figure:
        cost = search.costs[name]
        origin = "measured" if cost.origin == "counted" else "modelled"
        return Figure(value=value, unit=cost.unit, origin=origin, source=f"mixed precision, {cost.origin}")

    groups = tuple(
        GroupChoice(
            group=name,
            format=chosen.formats[name],
            macs=group.macs,
            noise={fmt: max(0.0, table.alone.get((name, fmt), 0.0)) for fmt in coded},
            measured=tuple(fmt for fmt in coded if (name, fmt) in measured),
        )
        for name, group in problem.groups.items()
    )
    first = next(iter(search.costs))
    return MixedResult(
        groups=groups,
        limits={name: figure(name, value) for name, value in limits.items()},
        costs={name: figure(name, value) for name, value in chosen.costs.items()},
        sqnr=Figure(value=chosen.sqnr_db, unit="dB", origin="measured", source="simulation on calibration samples"),
        found_by="one format" if chosen.found_by.startswith("all ") else chosen.found_by,
        ends={name: (search.at_share(name, 0.0), search.at_share(name, 1.0)) for name in search.costs},
        front=tuple(FrontPoint(cost=each.costs[first], sqnr=each.sqnr_db, shares=_shares(each)) for each in front),
        overrides=tuple(map(as_recipe, overrides)),
    )


def _shares(choice: Choice) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in choice.formats.values():
        counts[name] = counts.get(name, 0) + 1
    return counts


def as_recipe(override: Override) -> dict[str, object]:
    """An override as a recipe's `quantize.overrides` says it."""
    said: dict[str, object] = {"module": override.module}
    if override.keep_float:
        return {**said, "keep_float": True}
    for name, spec in (("weights", override.weights), ("activations", override.activations)):
        if spec is not None:
            said[name] = _spec(spec)
    return said


def _spec(spec: QParamsSpec) -> dict[str, object]:
    found: dict[str, object] = {
        "format": spec.format.name,
        "symmetric": spec.symmetric,
        "granularity": spec.granularity.value,
        "narrow_range": spec.narrow_range,
        "scale_kind": spec.scale_kind.value,
        "dynamic": spec.dynamic,
        "observer": spec.observer,
        "observer_arguments": dict(spec.observer_arguments),
    }
    return {**found, **({"block_size": spec.block_size} if spec.block_size else {})}
