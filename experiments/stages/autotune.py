"""Chooses where Q/DQ go on one runtime, by measured latency and measured accuracy together."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Figure
from bitwright.experiments.results import TunedResult
from bitwright.experiments.stage import Context, Stage
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.autotune import Fidelity, Tuned

TRIES = "autotune"  # in the run's folder, so that the tries of a run that was killed are there for the next one


def tune_artifact(context: Context) -> TunedResult:
    """Writes `tuned.onnx` and the record of its tries.

    Raises:
        InputError: none of the target's runtimes is here, or the table is of something else.
    """
    from bitwright.experiments.autotune_subject import subject_of, tune
    from bitwright.experiments.quantized_network import quantized_network
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.hw_constraints.autotune import Budget
    from bitwright.hw_constraints.autotune.journal import OtherSearchError
    from bitwright.hw_constraints.autotune.tuning import RECORD
    from bitwright.hw_constraints.table import TableKey
    from bitwright.quant.capture import capture

    recipe, bench = context.recipe, context.bench
    asked = recipe.autotune
    assert asked is not None  # the stage is only wanted then
    runtimes = bench.runtimes((asked.runtime,) if asked.runtime else None)
    if not runtimes:
        raise InputError(
            f"autotune: none of the target's runtimes ({', '.join(bench.target.artifact.runtimes)}) is here"
        )
    model = context.model()
    captured = capture(model, bench.example(model))
    calibration, rounding = bench.calibration(model), context.run_folder / "rounding"
    scheme = scheme_of(recipe, bench.target)
    quantized = quantized_network(recipe, captured, scheme, calibration, folder=rounding, console=context.console)
    subject, folder = subject_of(bench, model, captured, quantized), context.run_folder / TRIES
    tuning = partial(
        tune,
        subject,
        folder,
        runtime=runtimes[0],
        budget=Budget(tries=asked.tries, minutes=asked.minutes),
        threads=asked.threads,
        table=None if asked.table is None else Path(asked.table),
        console=context.console,
    )
    try:
        tuned = tuning()
    except OtherSearchError:  # of the run before: its weights, data, formats or machine were others
        shutil.rmtree(folder)
        tuned = tuning()
    for file in (tuned.file, tuned.file.with_suffix(".provenance.json"), folder / RECORD):
        shutil.copyfile(file, context.folder / file.name)
    return result_of_tuning(tuned, str(TableKey.here(runtimes[0], asked.threads)))


def result_of_tuning(tuned: Tuned, where: str) -> TunedResult:
    """What came out as it stands in the record; `where`: runtime and device."""
    artefact, full = tuned.fidelity["artefact"], tuned.fidelity["full int8"]
    return TunedResult(
        runtime=where,
        choice=tuned.choice,
        latencies={
            name: Figure(value=us / 1e3, unit="ms", origin="measured", source=f"{where}; median")
            for name, us in tuned.median_us.items()
        },
        ratios={
            name: Figure(
                value=ratio.value, unit="1", origin="measured", low=ratio.low, high=ratio.high, n=ratio.rounds,
                source=f"{where}, paired by round",
            )
            for name, ratio in tuned.against.items()
        },
        agreement=_agreement(artefact),
        agreement_int8=_agreement(full),
        sqnr=_sqnr(artefact),
        sqnr_int8=_sqnr(full),
        floats=tuple(sorted(tuned.floats)),
        sites=tuned.sites,
        tries=tuned.tries,
        why=tuned.why,
    )  # fmt: skip


_UNSEEN = "samples that the search has not seen"


def _agreement(found: Fidelity) -> Figure | None:
    value = found.agreement_percent
    if value is None:
        return None
    return Figure(value=value, unit="%", origin="measured", n=len(found.agreement), source=_UNSEEN)


def _sqnr(found: Fidelity) -> Figure:
    return Figure(value=found.mean_sqnr_db, unit="dB", origin="measured", n=len(found.sqnr_db), source=_UNSEEN)


def _tables(recipe: Recipe) -> tuple[str, ...]:
    asked = recipe.autotune
    return () if asked is None or asked.table is None else (asked.table,)


def _wanted(recipe: Recipe) -> bool:
    return recipe.autotune is not None


STAGE = Stage(
    name="autotune",
    run=tune_artifact,
    result=TunedResult,
    needs=("train",),
    reads=("model", "data", "example_inputs", "target", "calibrate", "quantize", "autotune"),
    reads_data=True,
    reads_machine=True,
    reads_files=_tables,
    code=(
        "bitwright.quant", "bitwright.hw_constraints.autotune", "bitwright.hw_constraints.backends",
        "bitwright.hw_constraints.measure", "bitwright.experiments.autotune_subject",
        "bitwright.experiments.quantized_network", "bitwright.experiments.scheme_settings",
    ),
    packages=("torch", "onnx", "onnxruntime", "openvino"),
    wanted=_wanted,
)  # fmt: skip
