"""Puts the figures into plain words, and holds them against the recipe's gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bitwright.experiments.figure_text import format_value
from bitwright.experiments.parity_result import ParityResult
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Gate
from bitwright.experiments.results import (
    EvaluateResult,
    LintResult,
    LowerResult,
    MeasureResult,
    PredictResult,
    ProveResult,
    QuantizeResult,
    RuntimeProof,
    VerdictResult,
)
from bitwright.experiments.stage import Context, Stage
from bitwright.hw_constraints import figures
from bitwright.hw_constraints.verdict import judge


def give_verdict(context: Context) -> VerdictResult:
    """Judges what the stages before have found."""
    evaluated = context.require("evaluate", EvaluateResult)
    proved = context.require("prove", ProveResult)
    measured = context.require("measure", MeasureResult)
    quantized = context.require("quantize", QuantizeResult)
    linted = context.require("lint", LintResult)
    lowered = context.require("lower", LowerResult)
    verdict = judge(
        figures.Figures(
            network=context.recipe.name,
            target=context.recipe.target,
            speed=tuple(_speeds(measured)),
            modelled=_modelled(lowered),
            metrics=(_metric(evaluated),),
            agreement=_agreement(evaluated),
            float_bytes=int(quantized.float_bytes.value),
            quantized_bytes=int(quantized.quantized_bytes.value),
            execution=_execution(proved),
            gates=(
                *gates(context.recipe, evaluated, proved, measured, linted, lowered),
                *_parity_gates(context.recipe, context.result("parity", ParityResult)),
            ),
            unverified=linted.unverified,
        )
    )
    predicted = context.result("predict", PredictResult)
    asides = (*_asides(quantized, proved, measured), *_slices(evaluated), *_expected(predicted))
    verdict = replace(verdict, statements=(*verdict.statements, *asides))
    return VerdictResult(
        headline=verdict.headline,
        speed=verdict.speed.value,
        statements=verdict.statements,
        holds_back=verdict.holds_back,
        changes=verdict.changes,
        gates=tuple(map(as_recorded, verdict.gates)),
        passed=verdict.passed,
        text=str(verdict),
    )


def gates(
    recipe: Recipe,
    evaluated: EvaluateResult,
    proved: ProveResult,
    measured: MeasureResult,
    linted: LintResult,
    lowered: LowerResult,
) -> Iterator[figures.Gate]:
    """The recipe's limits with what was found; an error of the linter always fails."""
    errors = sum(each.severity == "error" for each in linted.findings)
    yield figures.Gate(name="errors of the linter", value=errors, at_most=0)
    yield from accuracy_gates(recipe, evaluated)
    if recipe.prove.gate.min_mac_share is not None:
        for proof in proved.proofs:
            share = proof.low_precision_macs.value / 100
            name = f"share of MACs in low precision, {'in the file' if proved.simulated else proof.runtime}"
            yield figures.Gate(name=name, value=share, at_least=recipe.prove.gate.min_mac_share)
    if recipe.measure.gate.max_ratio is not None:
        limit = recipe.measure.gate.max_ratio
        for speed in measured.speeds:
            name = f"quantized / float latency (upper 95 % bound), {speed.runtime}"
            yield figures.Gate(name=name, value=speed.ratio.high, at_most=limit)
        if not measured.speeds:
            yield figures.Gate(name="quantized / float latency", value=None, at_most=limit)
    if recipe.lower.gate.max_ms is not None:
        # A lower bound keeps no limit.
        known = lowered.latency.value if lowered.latency is not None and not lowered.without_time else None
        yield figures.Gate(name="modelled latency, ms", value=known, at_most=recipe.lower.gate.max_ms)


def accuracy_gates(recipe: Recipe, evaluated: EvaluateResult) -> Iterator[figures.Gate]:
    """The recipe's `evaluate.gate` with what was found."""
    accuracy, metric = recipe.evaluate.gate, evaluated.metric
    if accuracy.max_drop is not None:
        yield figures.Gate(name=f"drop of {metric}", value=evaluated.drop.value, at_most=accuracy.max_drop)
    if accuracy.bound is not None:
        value = evaluated.quantized[0].metrics[metric].value
        lower, upper = (accuracy.bound, None) if evaluated.direction == "higher" else (None, accuracy.bound)
        yield figures.Gate(name=metric, value=value, at_least=lower, at_most=upper)
    if accuracy.min_agreement is not None:
        agreement = evaluated.agreement
        share = None if agreement is None else agreement.value / 100
        yield figures.Gate(name="agreement with float", value=share, at_least=accuracy.min_agreement)
    if accuracy.min_sqnr_db is not None:
        yield figures.Gate(name="SQNR of the results, dB", value=evaluated.sqnr.value, at_least=accuracy.min_sqnr_db)


def _parity_gates(recipe: Recipe, found: ParityResult | None) -> Iterator[figures.Gate]:
    """Forms that cannot run or return other results count as breaks."""
    if found is not None and recipe.parity is not None and recipe.parity.gate.max_breaks is not None:
        broken = {each.link for each in found.breaks}
        others = sum(not pair.agrees and pair.link not in broken for pair in found.pairs)
        number = len(found.breaks) + others
        yield figures.Gate(name="layers that break parity", value=number, at_most=recipe.parity.gate.max_breaks)


def _speeds(measured: MeasureResult) -> Iterator[figures.SpeedComparison]:
    for speed in measured.speeds:
        ratio = speed.ratio
        assert ratio.low is not None and ratio.high is not None and ratio.n is not None
        yield figures.SpeedComparison(
            runtime=speed.runtime,
            device=measured.device,
            float_us=speed.float_latency.value * 1e3,
            quantized_us=speed.quantized_latency.value * 1e3,
            ratio=figures.Interval(value=ratio.value, low=ratio.low, high=ratio.high),
            pairs=ratio.n,
        )


def _modelled(lowered: LowerResult) -> figures.ModelledLatency | None:
    if lowered.latency is None:
        return None
    return figures.ModelledLatency(
        us=lowered.latency.value * 1e3, model=lowered.model, is_whole=not lowered.without_time
    )


def _metric(evaluated: EvaluateResult) -> figures.MetricComparison:
    drop, name = evaluated.drop, evaluated.metric
    higher = evaluated.direction == "higher"
    difference = None
    if drop.low is not None and drop.high is not None:
        ends = (-drop.high, -drop.low) if higher else (drop.low, drop.high)
        difference = figures.Interval(value=-drop.value if higher else drop.value, low=ends[0], high=ends[1])
    return figures.MetricComparison(
        name=name,
        float_value=evaluated.reference.metrics[name].value,
        quantized_value=evaluated.quantized[0].metrics[name].value,
        higher_is_better=higher,
        difference=difference,
        unit=f" {drop.unit}" if drop.unit != "1" else "",
    )


def _agreement(evaluated: EvaluateResult) -> figures.Agreement | None:
    agreement = evaluated.agreement
    if agreement is None:
        return None
    return figures.Agreement(share=agreement.value / 100, samples=agreement.n or 0, sqnr_db=evaluated.sqnr.value)


def _execution(proved: ProveResult) -> figures.Execution:
    """Of the runtime that runs the least in low precision."""
    worst = min(proved.proofs, key=lambda proof: proof.low_precision_macs.value)
    return figures.Execution(
        low_precision_macs=worst.low_precision_macs.value / 100,
        executed=not proved.simulated,
        conversion_share=None if proved.simulated else worst.conversion_time.value / 100,
        float_layers=() if proved.simulated else tuple(_float_layers(worst)),
    )


def _float_layers(proof: RuntimeProof) -> Iterator[figures.FloatLayer]:
    for layer in proof.layers:
        if layer.state == "float" and layer.reason:
            yield figures.FloatLayer(layer=layer.layer, time_share=layer.time_share, reason=layer.reason)


def _asides(quantized: QuantizeResult, proved: ProveResult, measured: MeasureResult) -> Iterator[str]:
    """What a reader must know besides the figures."""
    if measured.reason:
        yield f"Speed was not measured: {measured.reason}."
    yield from (f"{note}." for note in quantized.notes)
    for proof in proved.proofs:
        yield from (f"{proof.runtime}: {warning}" for warning in proof.warnings)


def _slices(evaluated: EvaluateResult) -> Iterator[str]:
    """The slice that loses most, and those that hardly calibrated."""
    if len(evaluated.slices) > 1:
        worst = max(evaluated.slices, key=lambda each: (each.drop.value, -each.sqnr.value))
        yield (
            f"Of {len(evaluated.slices)} slices {worst.name!r} loses most: {evaluated.metric} from "
            f"{format_value(worst.reference.value, worst.reference.unit)} to "
            f"{format_value(worst.quantized.value, worst.quantized.unit)} on {worst.sqnr.n} samples, "
            f"{format_value(worst.sqnr.value, 'dB')} SQNR."
        )
    yield from (f"{each.warning[0].upper()}{each.warning[1:]}." for each in evaluated.slices if each.warning)


def _expected(predicted: PredictResult | None) -> Iterator[str]:
    """What was predicted before anything was quantized."""
    for gain in predicted.gains if predicted else ():
        yield f"Predicted beforehand, from {gain.table}: {gain.text or gain.reason}."


def as_recorded(gate: figures.Gate) -> Gate:
    """A gate as it stands in the record."""
    limits = [(">=", gate.at_least), ("<=", gate.at_most)]
    wanted = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
    found = "not measured" if gate.value is None else f"{gate.value:.4g}"
    return Gate(name=gate.name, holds=gate.passed, wanted=wanted, found=found)


STAGE = Stage(
    name="verdict",
    run=give_verdict,
    result=VerdictResult,
    needs=("lint", "lower", "predict", "quantize", "evaluate", "prove", "parity", "measure"),
    reads=("name", "target", "evaluate.gate", "prove.gate", "parity", "measure.gate", "lower.gate"),
    code=("bitwright.hw_constraints.verdict", "bitwright.hw_constraints.figures"),
    packages=(),
)
