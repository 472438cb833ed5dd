"""What `bitwright profile` does: a file, a network or another tool's report as one profile, with what goes beside."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.console import Console
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.backends import Arrays
    from bitwright.hw_constraints.profile.expected import Expected
    from bitwright.hw_constraints.profile.report import NetworkProfile
    from bitwright.hw_constraints.profile.tails import Tails
    from bitwright.hw_constraints.profile.throughput import Throughput
    from bitwright.hw_constraints.target_types import Target


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """The result.

    Attributes:
        profile: layer by layer.
        trace: in the Trace Event Format.
        tails: latencies alone and beside a co-runner, where asked for.
        throughput: over batch sizes and streams, where asked for.
    """

    profile: NetworkProfile
    trace: dict[str, Any]
    tails: tuple[Tails, ...]
    throughput: tuple[Throughput, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.profile.to_json(),
            "tails": [each.to_json() for each in self.tails],
            "throughput": [each.to_json() for each in self.throughput],
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for.

    Attributes:
        runtime: a runtime here; the first that is here when not given.
        reports: of another tool, instead of a runtime here.
        target: for modelled times.
        table: of measured kernels, for predicted times.
        threads: of the runtime.
        seconds: for each part.
        inputs: shapes of an entry's example inputs.
        beside: co-runners to time it beside.
        batches: sizes for the throughput.
        streams: numbers of streams for the throughput.
    """

    runtime: str | None = None
    reports: Sequence[Path] = ()
    target: str | None = None
    table: Path | None = None
    threads: int = 1
    seconds: float = 10.0
    inputs: Sequence[str] = ()
    beside: Sequence[str] = ()
    batches: Sequence[int] = ()
    streams: Sequence[int] = ()


def profile_model(model: str, asked: Asked, *, console: Console | None = None) -> Profiled:
    """Profiles an ONNX file, or the float network of an entry or a recipe.

    Args:
        model: what the command line names.
        asked: what of it.
        console: shows progress.

    Raises:
        InputError: no such network, target, runtime or co-runner, or two ways to get times are asked for.
    """
    from bitwright.experiments.model_commands import usable_runtimes
    from bitwright.hw_constraints.profile.layers import profile_file, profile_from
    from bitwright.hw_constraints.profile.tails import measure_tails
    from bitwright.hw_constraints.profile.throughput import SLICES, measure_throughput

    _check(asked)
    target = _target(asked.target)
    with _file_of(model, asked) as (path, inputs):
        if asked.reports:
            profile = profile_from(path, asked.reports, target=target)
            return Profiled(profile=profile, trace=_trace(profile, path, target), tails=(), throughput=())
        runtime = usable_runtimes([asked.runtime] if asked.runtime else None)[0]
        times: dict[str, Any] = {"threads": asked.threads, "seconds": asked.seconds, "inputs": inputs}
        track = (console or Console(quiet=True)).track
        with track(f"profiling on {runtime}, about {asked.seconds:g} s", None):
            profile = profile_file(path, runtime, target=target, predict=_predict(path, runtime, asked), **times)
        with track("timing beside another process", len(asked.beside)):
            tails = tuple(measure_tails(path, runtime, each, **times) for each in asked.beside)
        throughput: tuple[Throughput, ...] = ()
        if asked.batches or asked.streams:
            sizes = (asked.batches or (1,)), (asked.streams or (1,))
            with track("throughput over batch sizes and streams", None):
                throughput = measure_throughput(
                    path,
                    runtime,
                    batches=sizes[0],
                    streams=sizes[1],
                    threads=asked.threads,
                    seconds=asked.seconds / SLICES,
                )
        return Profiled(profile=profile, trace=_trace(profile, path, target), tails=tails, throughput=throughput)


def _check(asked: Asked) -> None:
    from bitwright.hw_constraints.profile.co_runner import CO_RUNNERS

    if asked.threads < 1:
        raise InputError(f"--threads = {asked.threads}; at least 1 is needed")
    if not 0 < asked.seconds < float("inf"):
        raise InputError(f"--seconds = {asked.seconds:g}; expected a number above 0")
    for each in asked.beside:
        if each not in CO_RUNNERS:
            raise InputError(f"--beside = {each!r}; there are: {', '.join(CO_RUNNERS)}")
    for name, sizes in (("--batch", asked.batches), ("--streams", asked.streams)):
        for size in sizes:
            if size < 1:
                raise InputError(f"{name} = {size}; at least 1 is needed")
    here = [
        ("--runtime", asked.runtime),
        ("--table", asked.table),
        ("--beside", asked.beside),
        ("--batch", asked.batches),
    ]
    for name, value in [*here, ("--streams", asked.streams)]:
        if asked.reports and value:
            raise InputError(f"{name} runs the file here, --from reads what ran elsewhere: give one of them")


def _target(name: str | None) -> Target | None:
    from bitwright.hw_constraints.target import Capability, load_target

    if name is None:
        return None
    target = load_target(name)
    target.require(Capability.COST)
    return target


def _predict(path: Path, runtime: str, asked: Asked) -> Callable[[], Expected] | None:
    if asked.table is None:
        return None
    from bitwright.hw_constraints.profile.predicted import predicted

    return partial(predicted, path, runtime, asked.table, threads=asked.threads)


@contextmanager
def _file_of(model: str, asked: Asked) -> Iterator[tuple[Path, Arrays | None]]:
    """The file to profile, and the network's own example where it has one."""
    from bitwright.hw_constraints.backends.artifacts import artifact_kind

    if model.endswith(".onnx"):
        if asked.inputs:
            raise InputError(f"--input = {asked.inputs[0]!r}; an ONNX file has the shapes of its inputs: leave it out")
        yield Path(model), None
        return
    if Path(model).is_file() and (kind := artifact_kind(Path(model))) is not None:
        raise InputError(f"{model}: is {kind.title}; layers are profiled of ONNX models only")
    from bitwright.experiments.lint_command import network_of
    from bitwright.experiments.runtime_model import named_inputs
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.export.onnx_qdq import export_float
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    network, example, _ = network_of(model, ["in float"], asked.inputs)
    try:
        captured = fold_batch_norm(capture(network, example))
    except CaptureError as error:
        raise InputError(f"{error}\n  profile its regions one by one: bitwright regions {model}") from error
    with tempfile.TemporaryDirectory() as folder:
        file = export_float(captured.graph, Path(folder) / "float.onnx")
        yield file, named_inputs(file, example)


def _trace(profile: NetworkProfile, path: Path, target: Target | None) -> dict[str, Any]:
    from bitwright.hw_constraints.cost import timeline
    from bitwright.hw_constraints.profile.expected import estimate_file
    from bitwright.hw_constraints.profile.timeline import perfetto

    if target is None:
        return perfetto(profile)
    estimate = estimate_file(path, target)
    return perfetto(profile, (timeline.title(estimate), timeline.spans(estimate)))
