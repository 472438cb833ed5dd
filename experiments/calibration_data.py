"""The samples that calibrate: the first, a random draw, or those whose values are spread as those of all are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bitwright.experiments.datasets import Split
from bitwright.experiments.held_out import select_rows
from bitwright.experiments.inputs import arguments_of, row_count
from bitwright.experiments.slices import slices_of
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch

    from bitwright.experiments.workbench import Workbench


def calibration_batches(bench: Workbench, model: torch.nn.Module) -> Iterator[Any]:
    """Batches as the loader gives them, of the rows that calibrate, in the order of the data.

    Raises:
        InputError: there are fewer rows than `calibrate.min_samples`.
    """
    asked = bench.recipe.calibrate
    chosen = None if asked.select == "first" else frozenset(chosen_rows(bench, model))
    count = 0
    for start, batch, rows in _rows(bench, model):
        kept = [row for row in range(rows) if chosen is None or start + row in chosen][: asked.samples - count]
        if kept:
            count += len(kept)
            yield select_rows(batch, kept, rows)
        if count == asked.samples:
            break
    least = min(asked.min_samples, asked.samples)
    if count < least:
        raise InputError(
            f"data: {count} samples to calibrate with; calibrate.min_samples = {least} asks for more "
            "(ranges from so few do not hold for others); give more data, or lower it in a recipe"
        )


def calibration_slices(bench: Workbench, model: torch.nn.Module) -> Counter[str]:
    """How many samples of each slice calibrate.

    Raises:
        InputError: as `slices_of` and `calibration_batches`.
    """
    slices, read = bench.recipe.data.slices, arguments_of(model, bench.recipe.data.inputs)
    found: Counter[str] = Counter()
    if slices is not None:
        for batch in calibration_batches(bench, model):
            found.update(slices_of(batch, slices, row_count(read(batch))))
    return found


def chosen_rows(bench: Workbench, model: torch.nn.Module) -> tuple[int, ...]:
    """The places of the rows that a recipe's `calibrate.select` chooses; found once for a workbench."""
    if "rows" not in bench.chosen:
        random = bench.recipe.calibrate.select == "random"
        bench.chosen["rows"] = _random(bench, model) if random else _covering(bench, model)
    return bench.chosen["rows"]


def _rows(bench: Workbench, model: torch.nn.Module) -> Iterator[tuple[int, Any, int]]:
    """Each batch with the place of its first row and how many it has."""
    read, start = arguments_of(model, bench.recipe.data.inputs), 0
    for batch in bench.data.loader(Split.CALIBRATE, 1, None):
        rows = row_count(read(batch))
        yield start, batch, rows
        start += rows


def _candidates(bench: Workbench, model: torch.nn.Module) -> Iterator[Any]:
    """The rows to choose from, one a batch."""
    most = bench.recipe.calibrate.candidates
    for start, batch, rows in _rows(bench, model):
        for row in range(rows):
            if most is not None and start + row >= most:
                return
            yield select_rows(batch, [row], rows)


def _random(bench: Workbench, model: torch.nn.Module) -> tuple[int, ...]:
    import torch

    count = sum(1 for _ in _candidates(bench, model))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(bench.recipe.seed))
    return tuple(order[: bench.recipe.calibrate.samples].tolist())


def _covering(bench: Workbench, model: torch.nn.Module) -> tuple[int, ...]:
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.quant.calibration_choice import choose_samples, histograms_of
    from bitwright.quant.capture import capture
    from bitwright.quant.fit_scheme import fit_scheme
    from bitwright.quant.plan import plan

    recipe, scheme = bench.recipe, scheme_of(bench.recipe, bench.target)
    captured = fit_scheme(capture(model, bench.example(model)), scheme)
    planned = plan(captured.graph, scheme)
    watched = [ref for ref in planned.activations if not captured.graph.is_constant(ref)]
    read, names = arguments_of(model, recipe.data.inputs), list[str]()

    def samples() -> Iterator[tuple[Any, ...]]:
        for batch in _candidates(bench, model):
            if recipe.data.slices is not None:
                names.extend(slices_of(batch, recipe.data.slices, 1))
            yield read(batch)

    histograms = histograms_of(captured, watched, samples())
    return tuple(choose_samples(histograms, recipe.calibrate.samples, names or None))
