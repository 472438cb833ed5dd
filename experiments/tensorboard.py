"""A run for TensorBoard: scalars to overlay, histograms with clip lines, bars, and the verdict as text.

Each network in each engine is a TensorBoard run of its own (`float/onnxruntime`, `quantized/onnxruntime`), so that the
same tag lies over the other; what has an order (epochs, layers) uses it as the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments import tensorboard_images as images
from bitwright.experiments.auto.result import AutoResult
from bitwright.experiments.auto.text import try_line
from bitwright.experiments.comparable import engine_name
from bitwright.experiments.parity_result import ParityResult
from bitwright.experiments.qat_events import copy_events
from bitwright.experiments.qat_result import QATResult
from bitwright.experiments.read_run import read_record, result_of
from bitwright.experiments.record import Figure, Record
from bitwright.experiments.results import (
    EvaluateResult,
    FindingRecord,
    LintResult,
    LowerResult,
    MeasureResult,
    ProveResult,
    QuantizeResult,
    TrainResult,
    TunedResult,
    VerdictResult,
)
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.supernet_events import copy_supernet_events
from bitwright.experiments.tensorboard_parity import write_parity
from bitwright.experiments.tensorboard_tensors import write_tensors
from bitwright.nas.review import write_review

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def write_tensorboard(run: Path, final: Path) -> Path:
    """Writes a run's event files.

    Args:
        run: its folder.
        final: the folder for TensorBoard, in place of an older one.

    Raises:
        InputError: there is no run, or another version wrote it.
        OSError: the folder is not writable or the disk is full.
    """
    record, partial = read_record(run), final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    runs = Runs(partial)
    try:
        for write in _WRITERS:
            write(record, runs)
        runs.close()
        copy_events(record, run, partial)
        copy_supernet_events(run, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final


class Runs:
    """One event file for each TensorBoard run, opened when first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def __getitem__(self, run: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if run not in self._writers:
            self._writers[run] = SummaryWriter(str(self._folder / run))
        return self._writers[run]

    def close(self) -> None:
        """Flushes everything to the disk."""
        for writer in self._writers.values():
            writer.close()


def _text(record: Record, runs: Runs) -> None:
    # One prefix for all texts of a run: TensorBoard opens the first prefixes only.
    verdict, linted = result_of(record, "verdict", VerdictResult), result_of(record, "lint", LintResult)
    writer = runs["summary"]
    if verdict is not None:
        writer.add_text("run/verdict", verdict_markdown(verdict))
    if linted is not None:
        findings = "\n\n".join(map(finding_markdown, linted.findings)) or "no findings"
        writer.add_text("run/lint", findings)


def verdict_markdown(verdict: VerdictResult) -> str:
    """The verdict with its gates as a table."""
    parts = [f"**{verdict.headline}**", "\n".join(f"- {each}" for each in verdict.statements)]
    for title, lines in (("What holds it back", verdict.holds_back), ("What to change", verdict.changes)):
        if lines:
            parts.append("\n".join([f"**{title}**", "", *(f"- {each}" for each in lines)]))
    if verdict.gates:
        outcomes = {True: "✓ passed", False: "✗ failed", None: "? not checked"}
        rows = [f"| {gate.name} | {gate.wanted} | {gate.found} | {outcomes[gate.holds]} |" for gate in verdict.gates]
        parts.append("\n".join(["| gate | wanted | found | outcome |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def finding_markdown(finding: FindingRecord) -> str:
    """A finding with the user's line, what is meant marked below it."""
    place = finding.source or finding.node
    lines = [f"**{finding.severity}** `{finding.rule}` {place} {finding.module_path}".rstrip(), ""]
    if finding.text:
        start = max(0, finding.text.find(finding.focus))
        length = len(finding.focus) or len(finding.text)
        lines += [f"    {finding.text}", f"    {' ' * start}{'^' * length}", ""]
    lines += [f"- found: {finding.found}", f"- allowed: {finding.allowed}", f"- instead: {finding.suggestion}"]
    if finding.cost is not None:
        calls = f" in {finding.calls} calls" if finding.calls > 1 else ""
        lines.append(f"- at stake: {finding.cost.value:.3g} {finding.cost.unit}{calls} ({finding.cost.origin})")
    return "\n".join(lines)


def _training(record: Record, runs: Runs) -> None:
    trained = result_of(record, "train", TrainResult)
    if trained is None:
        return
    writer = runs["train"]
    for step, epoch in enumerate(trained.epochs, start=1):
        writer.add_scalar("train/loss", epoch.loss, step)
        writer.add_scalar("train/learning_rate", epoch.lr, step)
        writer.add_scalar("train/seconds_per_epoch", epoch.seconds, step)


def _quality(record: Record, runs: Runs) -> None:
    evaluated = result_of(record, "evaluate", EvaluateResult)
    if evaluated is None:
        return
    writer = runs[f"float/{engine_name(evaluated.reference.engine)}"]
    for name, figure in evaluated.reference.metrics.items():
        writer.add_scalar(f"quality/{name}", figure.value)
    for index, accuracy in enumerate(evaluated.quantized):
        writer = runs[f"quantized/{engine_name(accuracy.engine)}"]
        for name, figure in accuracy.metrics.items():
            writer.add_scalar(f"quality/{name}", figure.value)
        if index == 0:  # the engine that the verdict speaks about
            _scalar_with_interval(writer, "quality/drop", evaluated.drop)
            writer.add_scalar("quality/output_sqnr_db", evaluated.sqnr.value)
            if evaluated.agreement is not None:
                writer.add_scalar("quality/agreement_percent", evaluated.agreement.value)


def _speed(record: Record, runs: Runs) -> None:
    measured = result_of(record, "measure", MeasureResult)
    if measured is None or not measured.speeds:
        return
    for row in measured.speeds:
        for network, latency in (("float", row.float_latency), ("quantized", row.quantized_latency)):
            writer = runs[f"{network}/{engine_name(row.runtime)}"]
            writer.add_scalar("latency/median_ms", latency.value)
            if latency.spread is not None:
                writer.add_scalar("latency/interquartile_range_ms", latency.spread)
            if network == "quantized":
                _scalar_with_interval(writer, "latency/ratio_to_float", row.ratio)
        if row.trained_latency is not None and row.trained_ratio is not None:
            writer = runs[f"qat/{engine_name(row.runtime)}"]
            writer.add_scalar("latency/median_ms", row.trained_latency.value)
            _scalar_with_interval(writer, "latency/ratio_to_float", row.trained_ratio)
    writer = runs["summary"]
    writer.add_image("latency", images.latency_image(measured.speeds), dataformats="HWC")


def _tuned(record: Record, runs: Runs) -> None:
    tuned = result_of(record, "autotune", TunedResult)
    if tuned is None:
        return
    writer = runs[f"tuned/{engine_name(tuned.runtime)}"]
    writer.add_scalar("latency/median_ms", tuned.latencies[tuned.choice].value)
    _scalar_with_interval(writer, "latency/ratio_to_float", tuned.ratios["float"])
    if tuned.agreement is not None:
        writer.add_scalar("quality/agreement_percent", tuned.agreement.value)


def _scalar_with_interval(writer: SummaryWriter, tag: str, figure: Figure, step: int | None = None) -> None:
    for suffix, value in (("", figure.value), ("_95_low", figure.low), ("_95_high", figure.high)):
        if value is not None:
            writer.add_scalar(f"{tag}{suffix}", value, step)


def _proof(record: Record, runs: Runs) -> None:
    proved = result_of(record, "prove", ProveResult)
    for proof in proved.proofs if proved else ():
        writer = runs[f"quantized/{engine_name(proof.runtime)}"]
        writer.add_scalar("proof/low_precision_mac_percent", proof.low_precision_macs.value)
        writer.add_scalar("proof/int8_time_percent", proof.int8_time.value)
        writer.add_scalar("proof/conversion_time_percent", proof.conversion_time.value)
        writer = runs["summary"]
        writer.add_image(f"proof/{proof.runtime}", images.proof_image(proof), dataformats="HWC")


def _lowering(record: Record, runs: Runs) -> None:
    lowered = result_of(record, "lower", LowerResult)
    if lowered is None or lowered.latency is None:
        return
    writer = runs["modelled"]
    writer.add_scalar("latency/modelled_ms", lowered.latency.value)
    for memory, figure in lowered.peaks.items():
        writer.add_scalar(f"memory/modelled_peak_bytes/{memory}", figure.value)
    for step, layer in enumerate(lowered.layers):
        if layer.us is not None:
            writer.add_scalar("layers/modelled_us", layer.us, step)
    runs["summary"].add_image("lowered_layers", images.lowered_image(lowered), dataformats="HWC")


def _slices(record: Record, runs: Runs) -> None:
    evaluated = result_of(record, "evaluate", EvaluateResult)
    for each in evaluated.slices if evaluated else ():
        for network, figure in (("float", each.reference), ("quantized", each.quantized)):
            runs[f"slices/{network}"].add_scalar(f"slices/{each.name}", figure.value)
        _scalar_with_interval(runs["slices/drop"], f"slices/{each.name}", each.drop)


def _auto(record: Record, runs: Runs) -> None:
    result = result_of(record, "auto", AutoResult)
    if result is None:
        return
    writer = runs["auto"]
    writer.add_text("auto", "\n".join([result.text, "", *(f"1. {try_line(each)}" for each in result.tries)]))
    for step, each in enumerate(result.tries, start=1):
        if each.evaluated is not None:
            _scalar_with_interval(writer, "auto/sqnr_db", each.evaluated.sqnr, step)
            _scalar_with_interval(writer, f"auto/drop_of_{each.evaluated.metric}", each.evaluated.drop, step)


def _layers(record: Record, runs: Runs) -> None:
    quantized = result_of(record, "quantize", QuantizeResult)
    if quantized is not None:
        write_tensors(quantized.tensors, runs.__getitem__)


def _qat(record: Record, runs: Runs) -> None:
    result = result_of(record, "qat", QATResult)
    if result is None:
        return
    writer = runs["qat"]
    for step, epoch in enumerate(result.epochs, start=1):
        writer.add_scalar("train/loss", epoch.loss, step)
        writer.add_scalar("train/learning_rate", epoch.lr, step)
        if epoch.quantized is not None:
            writer.add_scalar(f"qat/{result.metric}_by_epoch", epoch.quantized.value, step)
    for name, figure in (("float", result.reference), ("ptq", result.ptq), ("qat", result.qat)):
        _scalar_with_interval(runs[f"qat/{name}"], f"qat/{result.metric}", figure)
    _scalar_with_interval(writer, "qat/gain_over_ptq", result.gain)


def _search(record: Record, runs: Runs) -> None:
    result = result_of(record, "search", SearchResult)
    if result is not None:
        write_review(runs["search"], result.outcome, result.importance)


def _parity(record: Record, runs: Runs) -> None:
    compared = result_of(record, "parity", ParityResult)
    if compared is not None:
        write_parity(compared, runs["summary"])


_WRITERS: tuple[Callable[[Record, Runs], None], ...] = (
    _text, _training, _quality, _speed, _tuned, _proof, _lowering, _layers, _slices, _auto, _qat, _search, _parity,
)  # fmt: skip
