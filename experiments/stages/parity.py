"""Compares every form of the network with the one that it was made from: module, capture, files, optimised files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.results import ParityBreak, ParityPair, ParityResult
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.experiments.parity_command import ParityReport

REPRODUCERS = "reproducers"


def compare_forms(context: Context) -> ParityResult:
    """A break is a result, on which the verdict's gate decides; its reproducer lies in the stage's folder."""
    from bitwright.experiments.parity_command import compare_steps
    from bitwright.experiments.parity_data import inputs_for
    from bitwright.experiments.parity_sides import Side, chain_of_run
    from bitwright.hw_constraints.parity_links import LEVELS

    asked = context.recipe.parity
    assert asked is not None  # the stage is only wanted then
    model = context.model()
    example = context.bench.example(model)
    steps = chain_of_run(
        model,
        example,
        context.file("quantize", "quantized.onnx").parent,
        equalized=context.recipe.quantize.equalization,
        levels=(LEVELS[0], LEVELS[-1]),
        reference=False,
    )
    side = Side(steps=tuple(steps), bench=context.bench, example=example)
    inputs = inputs_for([side], None, asked.samples)
    return result_of_report(compare_steps(steps, inputs, context.folder / REPRODUCERS, console=context.console))


def result_of_report(report: ParityReport) -> ParityResult:
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
            )
            for pair in pairs
        ),
        breaks=tuple(
            ParityBreak(
                made_from=pair.first,
                link=pair.second,
                tensor=each.tensor.name,
                op=each.tensor.op,
                source=each.tensor.source,
                error=each.own.error if each.own else "",
                allowed=each.own.allowed if each.own else "",
            )
            for pair in pairs
            for each in pair.breaks
        ),
        unsteady=tuple(sorted({name for pair in pairs for name in pair.unsteady})),
        inputs=report.inputs,
        text=parity_text(report),
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
