"""Compares every form of the network with the one that it was made from: module, capture, files, optimised files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.parity_result import ParityBreak, ParityLayer, ParityPair, ParityPicture, ParityResult
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.stage import Context, Stage
from bitwright.quant.sqnr import EXACT_DB

if TYPE_CHECKING:
    from bitwright.experiments.parity_command import ParityReport
    from bitwright.quant.parity.locate import LayerParity, LinkParity

_BEYOND = 1e9  # other shapes and lone NaNs are infinitely far off
REPRODUCERS = "reproducers"


def compare_forms(context: Context) -> ParityResult:
    """A break is a result, on which the verdict's gate decides; its reproducer lies in the stage's folder."""
    from bitwright.experiments.parity_command import compare_steps
    from bitwright.experiments.parity_data import inputs_for
    from bitwright.experiments.parity_pictures import pictures
    from bitwright.experiments.parity_runtimes import Runtimes
    from bitwright.experiments.parity_sides import Side, chain_of_run, rewrites_of
    from bitwright.hw_constraints.parity_links import LEVELS

    asked = context.recipe.parity
    assert asked is not None  # the stage is only wanted then
    model = context.model()
    example = context.bench.example(model)
    steps = chain_of_run(
        model,
        example,
        context.file("quantize", "quantized.onnx").parent,
        Runtimes(levels=(LEVELS[0], LEVELS[-1])),
        rewrites=rewrites_of(context.bench, model),
    )
    side = Side(steps=tuple(steps), bench=context.bench, example=example)
    inputs = inputs_for([side], None, asked.samples)
    report = compare_steps(steps, inputs, context.folder / REPRODUCERS, console=context.console)
    return result_of_report(report, tuple(pictures(steps, report.chain, inputs[0])))


def result_of_report(report: ParityReport, pictures: tuple[ParityPicture, ...] = ()) -> ParityResult:
    """A report as it stands in the record."""
    from bitwright.experiments.parity_text import parity_text

    pairs = report.chain.pairs
    return ParityResult(
        pairs=tuple(
            ParityPair(
                made_from=pair.first,
                link=pair.second,
                layers=len(pair.layers),
                agrees=pair.agrees,
                problem=pair.problem,
                judged=tuple(_layer(each) for each in pair.layers if each.own is not None),
            )
            for pair in pairs
        ),
        breaks=tuple(_break(pair, each) for pair in pairs for each in pair.breaks),
        unsteady=tuple(sorted({name for pair in pairs for name in pair.unsteady})),
        inputs=report.inputs,
        text=parity_text(report),
        pictures=pictures,
    )


def _layer(layer: LayerParity) -> ParityLayer:
    """Numbers that a record can hold."""
    assert layer.own is not None
    return ParityLayer(
        tensor=layer.tensor.name,
        op=layer.tensor.op,
        severity=min(layer.own.severity, _BEYOND),
        cumulative_db=min(layer.cumulative_db, EXACT_DB),
    )


def _break(pair: LinkParity, layer: LayerParity) -> ParityBreak:
    counted = layer.histogram
    return ParityBreak(
        made_from=pair.first,
        link=pair.second,
        tensor=layer.tensor.name,
        op=layer.tensor.op,
        source=layer.tensor.source,
        error=layer.own.error if layer.own else "",
        allowed=layer.own.allowed if layer.own else "",
        edges=counted.edges if counted else (),
        expected_counts=counted.expected if counted else (),
        found_counts=counted.found if counted else (),
    )


def _wanted(recipe: Recipe) -> bool:
    return recipe.parity is not None


STAGE = Stage(
    name="parity",
    run=compare_forms,
    result=ParityResult,
    needs=("train", "quantize"),
    reads=("model", "data", "example_inputs", "quantize", "parity"),
    reads_data=True,
    code=("bitwright.quant", "bitwright.hw_constraints.parity_links", "bitwright.experiments.parity_sides"),
    packages=("torch", "onnx", "onnxruntime"),
    wanted=_wanted,
    reads_machine=True,
)
