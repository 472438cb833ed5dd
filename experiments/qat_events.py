"""Quantization-aware training as TensorBoard sees it while it runs: event files in the stage's folder."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.record import Record
from bitwright.experiments.stage import Context

if TYPE_CHECKING:
    import torch

    from bitwright.qat import QATCallback
    from bitwright.qat.sparsity import Sparsity
    from bitwright.quant.quantized_model import QuantizedModel

EVENTS = "events"
# A look at the latency while a network trains; the figure that counts is that of the stage `measure`.
_LATENCY_ROUNDS, _LATENCY_SECONDS = 5, 0.5


@contextlib.contextmanager
def watched(context: Context, callback: QATCallback, sparsity: Sparsity | None) -> Iterator[Callable[[], None]]:
    """What is to be called after each step: the callbacks' own, and a look every so many.

    The deployed network is the exported file on the first runtime of the recipe. Its latency is measured where that
    runs here, and else what the target's cost model says; a target with neither has none.
    """
    from torch.utils.tensorboard import SummaryWriter

    from bitwright.experiments.datasets import Split
    from bitwright.experiments.inputs import first_rows
    from bitwright.qat import Deployed, QATBoard

    recipe, bench = context.recipe, context.bench
    assert recipe.qat is not None
    arguments = next(iter(bench.arguments(callback.model, Split.EVALUATE, batch=recipe.example_inputs.batch)))
    held_out = first_rows(arguments, recipe.example_inputs.batch)
    with SummaryWriter(str(context.folder / EVENTS)) as writer:
        board = QATBoard(
            callback,
            writer,
            held_out=held_out,
            every=recipe.qat.look_every,
            deployed=Deployed(run=_on_runtime(context), latency_ms=_latency(context)),
        )

        def after_step() -> None:
            if sparsity is not None:
                sparsity.on_step()
            callback.on_step()
            board.on_step()

        yield after_step
        board.look()


def _on_runtime(context: Context) -> Callable[[QuantizedModel, tuple[Any, ...]], torch.Tensor]:
    """Exports the network and runs the file."""
    from bitwright.experiments.runtime_model import RuntimeModel
    from bitwright.quant.export.onnx_qdq import export_onnx_qdq

    runtimes, _ = context.bench.runtimes_or_simulator()
    file = context.folder / "qat.onnx"  # written for good at the end

    def run(quantized: QuantizedModel, arguments: tuple[Any, ...]) -> torch.Tensor:
        export_onnx_qdq(quantized, file)
        result: torch.Tensor = RuntimeModel(file, runtimes[0], quantized.run(*arguments))(*arguments)
        return result

    return run


def _latency(context: Context) -> Callable[[QuantizedModel], float] | None:
    from bitwright.hw_constraints.target import Capability

    if context.recipe.measure.on is not None:
        return None  # the device has other things to do than to wait for a training here
    runtimes = context.bench.runtimes(context.recipe.prove.runtimes)
    if runtimes:
        return _measured(context, runtimes[0])
    return _modelled(context) if Capability.COST in context.bench.target.capabilities else None


def _measured(context: Context, runtime: str) -> Callable[[QuantizedModel], float]:
    from bitwright.hw_constraints.measure import measure_in_subprocess
    from bitwright.quant.export.onnx_qdq import export_onnx_qdq

    file = context.folder / "qat.onnx"

    def latency_ms(quantized: QuantizedModel) -> float:
        export_onnx_qdq(quantized, file)
        found = measure_in_subprocess(
            {"trained": (file, runtime)},
            threads=context.recipe.measure.threads,
            inputs=None,
            min_rounds=_LATENCY_ROUNDS,
            max_seconds=_LATENCY_SECONDS,
        )
        return found.latency("trained").median_us / 1e3

    return latency_ms


def _modelled(context: Context) -> Callable[[QuantizedModel], float]:
    from bitwright.hw_constraints.modelled_time import modelled_time

    def latency_ms(quantized: QuantizedModel) -> float:
        found = modelled_time(quantized.captured.graph, context.bench.target, quantized.plan)
        return math.nan if found is None else found.us / 1e3

    return latency_ms


def copy_events(record: Record, run: Path, folder: Path) -> None:
    """Puts the event files of a finished run beside those that are written from its record."""
    stage = record.stages.get("qat")
    events = run / "stages" / "qat" / EVENTS
    if stage is not None and events.is_dir():
        shutil.copytree(events, folder / "qat_steps", dirs_exist_ok=True)
