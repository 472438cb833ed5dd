"""The slice of each sample (night, rain, a rare class), as the recipe's `data.slices` names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from bitwright.experiments.datasets.pictures import PictureBatch
from bitwright.experiments.entries import call_entry, wrong_result
from bitwright.experiments.held_out import select_rows
from bitwright.experiments.inputs import ToArguments, row_count
from bitwright.experiments.recipe_data import Slices
from bitwright.quant.errors import InputError


def slices_of(batch: Any, asked: Slices, rows: int) -> list[str]:
    """The name of the slice of each row of a batch.

    Args:
        batch: as the loader gives it.
        asked: where the names are.
        rows: how many samples the batch holds.

    Raises:
        InputError: the batch has no such column or comes from no files, or it names another number of rows.
    """
    if asked.folder is not None:
        found = _folders(batch, asked.folder)
    elif asked.entry is not None:
        found = _by_entry(batch, asked.entry)
    else:
        assert asked.column is not None
        found = _names(_column(batch, asked.column), asked)
    if len(found) != rows:
        raise InputError(f"data.slices: names {len(found)} slices for a batch of {rows} samples; give one a sample")
    return found


class OfSlice:
    """Batches with the rows of one slice alone; those that have none are left out."""

    def __init__(self, batches: Iterable[Any], read: ToArguments, asked: Slices, name: str) -> None:
        self.batches, self.read, self.asked, self.name = batches, read, asked, name

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            count = row_count(self.read(batch))
            rows = [row for row, name in enumerate(slices_of(batch, self.asked, count)) if name == self.name]
            if rows:
                yield select_rows(batch, rows, count)


def _folders(batch: Any, up: int) -> list[str]:
    if not isinstance(batch, PictureBatch):
        raise InputError(
            f"data.slices.folder = {up}: these data come from no folders of pictures; give column or entry instead"
        )
    shortest = min(batch.paths, key=lambda path: len(path.parts))
    if len(shortest.parents) <= up:
        raise InputError(f"data.slices.folder = {up}: {shortest} has no {up} folders above it")
    return [path.parts[-1 - up] for path in batch.paths]


def _by_entry(batch: Any, entry: str) -> list[str]:
    found = call_entry("data.slices.entry", entry, batch)
    if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(each, str) for each in found):
        raise wrong_result("data.slices.entry", entry, found, "a list of names, one for each row of the batch")
    return list(found)


def _column(batch: Any, column: str | int) -> Any:
    try:
        return batch[column]
    except (KeyError, IndexError, TypeError):
        has = f"the keys {sorted(batch, key=str)}" if isinstance(batch, Mapping) else f"{len(batch)} parts"
        raise InputError(f"data.slices.column = {column!r}: a batch ({type(batch).__name__}) has {has}") from None


def _names(values: Any, asked: Slices) -> list[str]:
    if isinstance(values, torch.Tensor):
        if values.dim() != 1 or values.is_floating_point():
            raise InputError(
                f"data.slices.column = {asked.column!r}: holds {values.dtype} {list(values.shape)}; expected one whole "
                "number or name for each row"
            )
        numbers = [int(each) for each in values]
        if asked.names and not all(0 <= each < len(asked.names) for each in numbers):
            wrong = next(each for each in numbers if not 0 <= each < len(asked.names))
            raise InputError(f"data.slices.names: has {len(asked.names)} names, the column holds {wrong}")
        return [asked.names[each] if asked.names else str(each) for each in numbers]
    return [str(each) for each in values]
