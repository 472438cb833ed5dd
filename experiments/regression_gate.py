"""Two runs' artefacts measured again, side by side on this machine: the gate of `bitwright compare --measure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.console import Console
from bitwright.experiments.run_folder import RESOLVED
from bitwright.hw_constraints.measure.regression import Change, Regression, compare_files
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.experiments.workbench import Workbench
    from bitwright.hw_constraints.figures import Interval

_ARTIFACT = Path("stages") / "quantize" / "quantized.onnx"


@dataclass(frozen=True, kw_only=True)
class QualityChange:
    """The metric of both artefacts on the same samples.

    Attributes:
        metric: its name.
        engine: what ran them.
        old: in percent.
        new: in percent.
        difference: new - old in points, paired by sample, with its 95 % interval; None where the metric is no share of
            samples, or the user's own.
        margin: points by which it may be lower.
        reason: why it is not judged.
    """

    metric: str
    engine: str
    old: float
    new: float
    difference: Interval | None
    margin: float
    reason: str = ""

    @property
    def change(self) -> str:
        """What the interval proves: `worse`, `not worse`, `cannot tell`, or `not judged`."""
        if self.difference is None:
            return "not judged"
        if self.difference.high < -self.margin:
            return "worse"
        return "not worse" if self.difference.low >= -self.margin else "cannot tell"

    def __str__(self) -> str:
        if self.difference is None:
            return f"not judged, {self.reason}"
        found, more = self.difference, "; take more samples" if self.change == "cannot tell" else ""
        interval = f"{found.value:+.2f} points [{found.low:+.2f}, {found.high:+.2f}]"
        return f"{interval}: {self.change} ({self.margin:g} points lower is allowed{more})"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = self.difference
        ends = None if found is None else {"value": found.value, "low": found.low, "high": found.high}
        plain = {name: getattr(self, name) for name in ("metric", "engine", "old", "new", "margin", "reason")}
        return {**plain, "difference": ends, "change": self.change}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What was measured again.

    Attributes:
        latency: by runtime.
        quality: None for bare files.
    """

    latency: Mapping[str, Regression]
    quality: QualityChange | None

    @property
    def regressions(self) -> tuple[str, ...]:
        """What is proven to have become worse."""
        slower = [f"latency, {name}" for name, each in self.latency.items() if each.change is Change.SLOWER]
        worse = self.quality is not None and self.quality.change == "worse"
        return (*slower, *([self.quality.metric] if self.quality is not None and worse else []))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "latency": {name: each.to_json() for name, each in self.latency.items()},
            "quality": None if self.quality is None else self.quality.to_json(),
            "regressions": list(self.regressions),
        }


def measure_again(
    first: Path,
    second: Path,
    *,
    margin: float,
    points: float,
    runtimes: Sequence[str],
    threads: int,
    seconds: float,
    console: Console,
) -> Gate:
    """Measures the artefacts of two runs, or two ONNX files, against each other.

    Args:
        first: the reference: a run's folder, or an ONNX file.
        second: what may have become worse; its recipe gives the data.
        margin: the share by which it may be slower.
        points: by which its metric may be lower.
        runtimes: to measure on; those of the second run's target that are here, or all here, when there are none.
        threads: of the runtimes.
        seconds: for each runtime.
        console: shows progress.

    Raises:
        InputError: an artefact is missing, margins are no shares, or a runtime or the data cannot be used.
    """
    for name, value in (("--margin", 100 * margin), ("--points", points)):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} = {value:g}; expected 0 or more")
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds = {seconds:g}; expected a number above 0")
    old, new = artifact_of(first), artifact_of(second)
    bench = _bench(second) if second.is_dir() else None
    names = _runtimes(bench, runtimes)
    inputs = _inputs(bench, new)
    latency = {}
    for name in names:
        with console.track(f"measuring on {name}, about {seconds:g} s, processes", None) as advance:
            latency[name] = compare_files(
                old, new, name, margin=margin, threads=threads, seconds=seconds, inputs=inputs, progress=advance
            )
    quality = _quality(bench, old, new, names[0], points, console) if bench is not None else None
    return Gate(latency=latency, quality=quality)


def artifact_of(place: Path) -> Path:
    """The file to measure: the quantized artefact of a run's folder, or the file itself.

    Raises:
        InputError: there is none.
    """
    file = place / _ARTIFACT if place.is_dir() else place
    if not file.is_file():
        hint = "run its recipe again up to the quantize stage" if place.is_dir() else "give a run's folder or a file"
        raise InputError(f"{file}: no such file; {hint}")
    if place.is_dir() or place.suffix == ".onnx":
        return file
    raise InputError(f"{place}: expected a run's folder or an ONNX file")


def _bench(run: Path) -> Workbench:
    from bitwright.experiments.load_recipe import load_recipe
    from bitwright.experiments.workbench import Workbench

    return Workbench(load_recipe(str(run / RESOLVED)))


def _runtimes(bench: Workbench | None, asked: Sequence[str]) -> tuple[str, ...]:
    from bitwright.experiments.model_commands import usable_runtimes

    if asked or bench is None:
        return usable_runtimes(asked or None)
    runtimes = bench.runtimes(bench.recipe.measure.runtimes)
    if not runtimes:
        wanted = ", ".join(bench.target.artifact.runtimes) or "it names none"
        raise InputError(f"none of the runtimes of {bench.target.id} ({wanted}) is here: name others with --runtime")
    return runtimes


def _inputs(bench: Workbench | None, artifact: Path) -> Mapping[str, Any] | None:
    """The recipe's own example, under the names of the artefact's inputs."""
    from bitwright.experiments.runtime_model import named_inputs

    return None if bench is None else named_inputs(artifact, bench.example(bench.new_model()))


def _quality(bench: Workbench, old: Path, new: Path, runtime: str, points: float, console: Console) -> QualityChange:
    import torch

    from bitwright.experiments.evaluation import evaluate
    from bitwright.experiments.runtime_model import RuntimeModel

    model, asked = bench.new_model(), bench.recipe.evaluate
    with torch.no_grad():
        output = model(*bench.example(model))
    networks = [RuntimeModel(file, runtime, output) for file in (old, new)]
    scores, (comparison,) = evaluate(bench, model, networks, console=console)
    reason = ""
    if comparison.difference is None:
        whose = "of the user's own" if asked.entry is not None else "that is no share of single samples"
        reason = f"a metric {whose} has no interval that is paired by sample"
    return QualityChange(
        metric=asked.metric,
        engine=networks[0].engine,
        old=scores[0].metrics[asked.metric],
        new=scores[1].metrics[asked.metric],
        difference=comparison.difference,
        margin=points,
        reason=reason,
    )
