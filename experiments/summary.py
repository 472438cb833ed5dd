"""What a run found, in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from bitwright.experiments.figure_text import format_interval, format_value
from bitwright.experiments.record import Record
from bitwright.experiments.results import EvaluateResult, MeasureResult, ProveResult, TunedResult, VerdictResult
from bitwright.experiments.tables import print_table
from bitwright.experiments.views import REPORT, TENSORBOARD


def print_summary(record: Record, folder: Path) -> None:
    """Proof and speed by runtime, the verdict, and where to look."""
    rows = _runtime_rows(record)
    if rows:
        print_table(("runtime", "low-precision MACs", "float", "quantized", "quantized / float"), rows)
        print()
    slices = _slice_rows(record)
    if slices:
        print_table(("slice", "samples", "calibrated", "float", "quantized", "drop"), slices)
        print()
    tuned = record.stages.get("autotune")
    if tuned is not None and tuned.result:
        print(f"{tuned_text(TunedResult.model_validate(tuned.result))}\n")
    verdict = record.stages.get("verdict")
    if verdict is not None and verdict.result:
        print(VerdictResult.model_validate(verdict.result).text)
        print()
    for path in where_to_look(record, folder):
        print(path)


def _slice_rows(record: Record) -> list[tuple[str, ...]]:
    evaluated = record.stages.get("evaluate")
    if evaluated is None or not evaluated.result:
        return []
    return [
        (
            each.name,
            str(each.sqnr.n),
            str(each.calibrated),
            format_value(each.reference.value, each.reference.unit),
            format_value(each.quantized.value, each.quantized.unit),
            " ".join(filter(None, (format_value(each.drop.value, each.drop.unit), format_interval(each.drop)))),
        )
        for each in EvaluateResult.model_validate(evaluated.result).slices
    ]


def tuned_text(tuned: TunedResult) -> str:
    """What tuning came to, in a line."""
    against = " and ".join(
        f"x {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of {name}"
        for name, ratio in tuned.ratios.items() if name != tuned.choice
    )  # fmt: skip
    why = f"; {tuned.why}" if tuned.why else ""
    sites = f"{len(tuned.floats)} of {tuned.sites} sites in float"
    return f"tuned for {tuned.runtime}: {tuned.choice} is kept ({sites}), {against}{why}"


def _runtime_rows(record: Record) -> list[tuple[str, ...]]:
    proved = record.stages.get("prove")
    if proved is None or not proved.result:
        return []
    measured = record.stages.get("measure")
    speeds = MeasureResult.model_validate(measured.result).speeds if measured and measured.result else ()
    by_runtime = {speed.runtime: speed for speed in speeds}
    rows: list[tuple[str, ...]] = []
    for proof in ProveResult.model_validate(proved.result).proofs:
        name = f"{proof.runtime} {proof.version}"
        macs = f"{proof.low_precision_macs.value:.1f} % ({proof.low_precision_macs.origin})"
        speed = by_runtime.get(name)
        if speed is None:
            rows.append((name, macs, "–", "–", "–"))
            continue
        ratio = f"{speed.ratio.value:.3f} [{speed.ratio.low:.3f}, {speed.ratio.high:.3f}]"
        times = (f"{each.value:.3f} ms" for each in (speed.float_latency, speed.quantized_latency))
        rows.append((name, macs, *times, ratio))
    return rows


def where_to_look(record: Record, folder: Path) -> list[str]:
    """The files that a person opens first."""
    artifacts = [file for stage in record.stages.values() for file in stage.files if file.endswith(".onnx")]
    lines = [f"artefact  {folder / file}" for file in artifacts if "float" not in Path(file).name]
    if (folder / REPORT).is_file():
        lines.append(f"report    {folder / REPORT}")
    if (folder / TENSORBOARD).is_dir():
        lines.append(f"curves    tensorboard --logdir {folder / TENSORBOARD}")
    return [*lines, f"record    {folder / 'record.json'}"]
