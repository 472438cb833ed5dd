"""A quantized network with samples, and its tuning: what the command `autotune` and the stage of that name share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.workbench import Workbench
from bitwright.hw_constraints.autotune import Budget, Tuned, autotune
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.table.lock import sole_writer
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

    from bitwright.hw_constraints.backends import Arrays
    from bitwright.quant.captured_model import CapturedModel
    from bitwright.quant.quantized_model import QuantizedModel

SAMPLES = 64  # to search with, and as many others to check the result with


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A quantized network with data.

    Attributes:
        name: for the folder.
        quantized: everything in low precision that the target allows, or as the file has it.
        reference: the same in float.
        search: arguments to search with.
        held_out: others.
    """

    name: str
    quantized: QuantizedModel
    reference: CapturedModel
    search: Sequence[tuple[Any, ...]]
    held_out: Sequence[tuple[Any, ...]]


def subject_of(bench: Workbench, model: torch.nn.Module, captured: CapturedModel, quantized: QuantizedModel) -> Subject:
    """A recipe's network with samples of its calibration data to search with, and of its evaluation data to check with.

    Raises:
        InputError: the data hold fewer than two samples.
    """
    from bitwright.quant.calibrate import take
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    splits = (Split.CALIBRATE, Split.EVALUATE)
    search, others = (take(captured, bench.arguments(model, split, batch=1), 2 * SAMPLES) for split in splits)
    search, held_out = apart(search, others)
    return Subject(
        name=bench.recipe.name, quantized=quantized, reference=fold_batch_norm(captured),
        search=search, held_out=held_out,
    )  # fmt: skip


def tune(
    subject: Subject,
    out: Path,
    *,
    runtime: str,
    budget: Budget,
    threads: int,
    table: Path | None = None,
    others: Mapping[str, Path] | None = None,
    console: Console,
) -> Tuned:
    """Tunes into a folder, whose record of tries is gone on with.

    Args:
        subject: what is tuned.
        out: the folder of the record and the artefact.
        runtime: a backend that reads ONNX files.
        budget: when to stop.
        threads: of the runtime.
        table: latencies of kernels, to order tries by; nothing is decided by it.
        others: other tools' files of the same network, by what they are called.
        console: where the progress goes.

    Raises:
        InputError: the folder or the table cannot be used, another process tunes into the folder, or nothing is
            quantized.
    """
    search, held_out = (_feeds(subject.reference, each) for each in (subject.search, subject.held_out))
    predict = None if table is None else prediction(table, runtime, threads)
    console.say(
        f"{subject.name} → {out} ({runtime}, {len(search)} samples to search with, {len(held_out)} to check with)"
    )
    with sole_tuner(out), console.track("tuning, tries", budget.tries) as advance:
        return autotune(
            subject.quantized,
            subject.reference,
            runtime=runtime,
            search_samples=search,
            held_out=held_out,
            out=out,
            budget=budget,
            threads=threads,
            others=others,
            predict=predict,
            progress=advance,
        )


def prediction(table: Path, runtime: str, threads: int) -> Callable[[Path], float]:
    """Microseconds of a file by a table.

    Raises:
        InputError: the table is missing, damaged or empty, or of something else than what is tuned for.
    """
    from bitwright.hw_constraints.predict.from_table import predictor_of

    measured = KernelTable.load(table, key=TableKey.here(runtime, threads))
    if not measured.measured:
        raise InputError(f"{table}: has no measured kernel; fill it first: bitwright measure kernels --out {table}")
    predictor = predictor_of(measured)
    return lambda file: predictor.network(predictor.split(file)).us


@contextmanager
def sole_tuner(out: Path) -> Iterator[None]:
    """The folder of the record, made and held for this process alone.

    Raises:
        InputError: it cannot be a folder, or another process tunes into it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out = {str(out)!r}: cannot be a folder: {error.strerror}") from error
    with sole_writer(out / "tries.jsonl", doing="tuning", instead="choose another --out"):
        yield


def apart(
    search: Sequence[tuple[Any, ...]], others: Sequence[tuple[Any, ...]]
) -> tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]:
    """Samples to search with and samples that are none of them; the first are halved where there are no others.

    Raises:
        InputError: there are fewer than two samples.
    """
    seen = {_content(sample) for sample in search}
    fresh = [sample for sample in others if _content(sample) not in seen]
    if not fresh:
        middle = len(search) // 2
        search, fresh = search[:middle], list(search[middle:])
    if not search or not fresh:
        raise InputError("data: autotune needs at least two samples, to search with one and check with the other")
    return search[:SAMPLES], fresh[:SAMPLES]


def _content(sample: tuple[Any, ...]) -> bytes:
    import torch
    import torch.utils._pytree as pytree

    leaves = [leaf for leaf in pytree.tree_leaves(sample) if isinstance(leaf, torch.Tensor)]
    return b"".join(leaf.detach().cpu().contiguous().numpy().tobytes() for leaf in leaves)


def _feeds(captured: CapturedModel, samples: Iterable[tuple[Any, ...]]) -> list[Arrays]:
    """Arguments under the names that the exported file's inputs have."""
    import torch
    import torch.utils._pytree as pytree

    from bitwright.quant.export.onnx_builder import value_name

    names = [value_name(ref) for ref in captured.graph.inputs]
    feeds: list[Arrays] = []
    for sample in samples:
        leaves = [leaf for leaf in pytree.tree_leaves(sample) if isinstance(leaf, torch.Tensor)]
        feeds.append({name: leaf.detach().cpu().numpy() for name, leaf in zip(names, leaves, strict=True)})
    return feeds
