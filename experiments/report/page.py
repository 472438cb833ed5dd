"""Puts a record into the page's template; everything the page shows is in the record, nothing is measured here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bitwright.experiments.auto.result import AutoResult
from bitwright.experiments.figure_text import format_change, format_interval, format_value, provenance
from bitwright.experiments.parity_result import ParityBreak, ParityPair, ParityResult
from bitwright.experiments.qat_result import QATResult
from bitwright.experiments.read_run import read_record, result_of
from bitwright.experiments.record import Record
from bitwright.experiments.report import charts
from bitwright.experiments.report.headline import headline_rows
from bitwright.experiments.report.lower_chart import lower_chart
from bitwright.experiments.report.parity_chart import parity_chart, values_chart
from bitwright.experiments.report.qat_chart import qat_chart
from bitwright.experiments.report.search_view import SearchView
from bitwright.experiments.results import (
    EvaluateResult,
    FindingRecord,
    LintResult,
    LowerResult,
    MeasureResult,
    ProveResult,
    QuantizeResult,
    RuntimeProof,
    TrainResult,
    VerdictResult,
)
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.search_text import label
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.tensor_result import TensorQuality

_HISTOGRAMS = 6  # the worst layers, two rows of three


def write_report(run: Path, page: Path) -> Path:
    """Writes a run's page, whether or not the run has finished.

    Args:
        run: its folder.
        page: the file to write, in place of an older one.

    Raises:
        InputError: there is no run, or another version wrote it.
        OSError: the folder is not writable or the disk is full.
    """
    replace_file(page, render_report(read_record(run)))
    return page


def render_report(record: Record) -> str:
    """The page as HTML: CSS, scripts and drawings inside, nothing requested from elsewhere."""
    return _environment().get_template("page.html.j2").render(**_contents(record))


@cache
def _environment() -> Environment:
    # Autoescape is on for every template: names of layers, lines of code and messages come from the user's files.
    environment = Environment(
        loader=PackageLoader("bitwright.experiments.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        value=lambda figure: format_value(figure.value, figure.unit),
        interval=format_interval,
        provenance=provenance,
        change=lambda figure: format_change(figure.value, figure.unit),
        percent=lambda share: f"{100 * share:.1f} %",
    )
    return environment


def _contents(record: Record) -> dict[str, Any]:
    quantized = result_of(record, "quantize", QuantizeResult)
    measured = result_of(record, "measure", MeasureResult)
    proved = result_of(record, "prove", ProveResult)
    trained = result_of(record, "train", TrainResult)
    linted = result_of(record, "lint", LintResult)
    lowered = result_of(record, "lower", LowerResult)
    compared = result_of(record, "parity", ParityResult)
    tensors = quantized.tensors if quantized else ()
    qat = result_of(record, "qat", QATResult)
    searched = result_of(record, "search", SearchResult)
    return {
        "css": Markup(_source("page.css")),
        "script": Markup(_source("page.js")),
        "record": record,
        "verdict": result_of(record, "verdict", VerdictResult),
        "headline": tuple(headline_rows(record)),
        "evaluated": result_of(record, "evaluate", EvaluateResult),
        "measured": measured,
        "latency_chart": charts.latency_chart(measured.speeds) if measured and measured.speeds else None,
        "proofs": tuple(map(ProofView.of, proved.proofs)) if proved else (),
        "simulated": proved is not None and proved.simulated,
        "parity": compared,
        "parity_views": tuple(ParityView.each(compared)) if compared else (),
        "linted": linted,
        "findings": tuple(map(FindingView.of, linted.findings)) if linted else (),
        "lowered": lowered,
        "lower_chart": lower_chart(lowered.layers) if lowered and lowered.layers else None,
        "quantized": quantized,
        "tensors": TensorsView.of(tensors) if any(each.kind == "activation" for each in tensors) else None,
        "trained": trained,
        "training_chart": _training_chart(trained),
        "qat": qat,
        "qat_chart": qat_chart(qat) if qat else None,
        "qat_curve": _qat_curve(qat) if qat and len(qat.epochs) > 1 else None,
        "search": SearchView.of(searched) if searched else None,
        "auto": result_of(record, "auto", AutoResult),
        "label": label,
        "recipe_yaml": yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True),
        "commands": tuple(reproduction(record)),
    }


def _training_chart(trained: TrainResult | None) -> Markup | None:
    return charts.loss_chart(trained.epochs, name="loss") if trained and len(trained.epochs) > 1 else None


def _qat_curve(qat: QATResult) -> Markup:
    """The metric by epoch where it was taken, else the loss."""
    scores = [each.quantized.value for each in qat.epochs if each.quantized is not None]
    if len(scores) < len(qat.epochs):
        return charts.loss_chart(qat.epochs, name="qat-curve")
    curves = {"QAT": scores, "PTQ": [qat.ptq.value] * len(scores), "float": [qat.reference.value] * len(scores)}
    title = f"{qat.metric} of the simulated network by epoch"
    return charts.curve_chart(curves, name="qat-curve", title=title, unit=f"{qat.metric}, {qat.qat.unit}", zero=False)


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class ProofView:
    """A runtime's proof with its drawing."""

    proof: RuntimeProof
    chart: Markup

    @classmethod
    def of(cls, proof: RuntimeProof) -> ProofView:
        """Draws it."""
        return cls(proof, charts.state_chart(proof))


@dataclass(frozen=True)
class FindingView:
    """A finding with the user's line cut at what is underlined."""

    finding: FindingRecord
    before: str
    focus: str
    after: str

    @classmethod
    def of(cls, finding: FindingRecord) -> FindingView:
        """Cuts the line; all of it is meant when the focus is not in it."""
        before, focus, after = finding.text.partition(finding.focus) if finding.focus else (finding.text, "", "")
        return cls(finding, before, focus, after) if focus else cls(finding, "", finding.text, "")


@dataclass(frozen=True)
class ParityView:
    """Two forms of the network: the chart over all layers, and those that break, each with its values."""

    pair: ParityPair
    chart: Markup | None
    breaks: tuple[tuple[ParityBreak, Markup | None], ...]
    more: int

    @classmethod
    def each(cls, result: ParityResult) -> Iterator[ParityView]:
        """Draws every pair."""
        for number, pair in enumerate(result.pairs):
            broken = [each for each in result.breaks if (each.made_from, each.link) == (pair.made_from, pair.link)]
            shown = tuple(
                (each, values_chart(each, name=f"values-{number}-{index}") if each.edges else None)
                for index, each in enumerate(broken[:_HISTOGRAMS])
            )
            chart = parity_chart(pair, name=f"parity-{number}") if pair.judged else None
            yield cls(pair, chart, shown, max(0, len(broken) - _HISTOGRAMS))


@dataclass(frozen=True)
class TensorsView:
    """The chart over all activations; activations and weights with the lowest SQNR, each with its histogram."""

    chart: Markup
    worst: tuple[tuple[TensorQuality, Markup | None], ...]
    weights: tuple[tuple[TensorQuality, Markup | None], ...]

    @classmethod
    def of(cls, tensors: tuple[TensorQuality, ...]) -> TensorsView:
        """Draws them."""
        activations = [each for each in tensors if each.kind == "activation"]
        weights = [each for each in tensors if each.kind == "weight"]
        return cls(
            charts.sqnr_chart(activations),
            _drawn(sorted(activations, key=lambda each: each.own_sqnr.value)[:_HISTOGRAMS], "histogram"),
            _drawn(sorted(weights, key=lambda each: each.sqnr.value)[:_HISTOGRAMS], "weights"),
        )


def _drawn(tensors: Sequence[TensorQuality], name: str) -> tuple[tuple[TensorQuality, Markup | None], ...]:
    """Each with its histogram; a constant has none."""
    return tuple(
        (each, charts.histogram_chart(each, name=f"{name}-{index}") if each.counts else None)
        for index, each in enumerate(tensors)
    )


def reproduction(record: Record) -> Iterator[str]:
    """The commands that give the same run again."""
    if record.git is not None:
        yield f"git checkout {record.git.commit}" + ("    # and the changes that were not committed" * record.git.dirty)
    # Only what was installed when the run was made, without a build's local suffix (2.13.0+cpu), which no index has.
    pins = [f"{name}=={re.sub(r'[+].*', '', version)}" for name, version in record.versions.items() if name != "python"]
    yield f"pip install {shlex.join(pins)}    # Python {record.versions.get('python', '')}".rstrip()
    yield "bitwright run recipe.resolved.yaml --out again"
