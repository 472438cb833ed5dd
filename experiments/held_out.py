"""What is scored and did not calibrate: rows of batches, told apart by their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.experiments.datasets.pictures import PictureBatch
from bitwright.experiments.inputs import Arguments, row_count
from bitwright.quant.errors import InputError


def row_hashes(arguments: Arguments) -> list[bytes]:
    """What each row of the arguments holds, as one hash a row."""
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    rows = row_count(arguments)
    shared = [leaf.detach().cpu().contiguous() for leaf in leaves if leaf.dim() and leaf.shape[0] == rows]
    found = []
    for row in range(rows):
        digest = hashlib.blake2b(digest_size=16)
        for leaf in shared:
            digest.update(leaf[row].reshape(-1).view(torch.uint8).numpy().tobytes())
        found.append(digest.digest())
    return found


def select_rows(batch: Any, rows: Sequence[int], count: int) -> Any:
    """A batch of any form with some of its `count` rows: of every tensor and list of names that has one a row."""
    if list(rows) == list(range(count)):
        return batch

    def select(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part[list(rows)] if part.dim() and part.shape[0] == count else part
        if isinstance(part, PictureBatch):
            return PictureBatch.of(map(select, part), (part.paths[row] for row in rows))
        if isinstance(part, Mapping):
            return {key: select(value) for key, value in part.items()}
        if isinstance(part, tuple | list):
            if len(part) == count and all(isinstance(each, str) for each in part):
                return type(part)(part[row] for row in rows)
            return tuple(select(each) for each in part) if isinstance(part, tuple) else [*map(select, part)]
        return part

    return select(batch)


class HeldOut:
    """Passes batches on without the rows that calibrated.

    Attributes:
        batches: of the evaluation data.
        read: from a batch to the network's arguments.
        calibrated: hashes of the rows that calibrated.
    """

    def __init__(self, batches: Iterable[Any], read: Callable[[Any], Arguments], calibrated: frozenset[bytes]) -> None:
        self.batches, self.read, self.calibrated = batches, read, calibrated

    def __iter__(self) -> Iterator[Any]:
        """Batches with at least one row.

        Raises:
            InputError: every row calibrated.
        """
        seen = kept = 0
        for batch in self.batches:
            hashes = row_hashes(self.read(batch))
            rows = [row for row, found in enumerate(hashes) if found not in self.calibrated]
            seen, kept = seen + len(hashes), kept + len(rows)
            if rows:
                yield select_rows(batch, rows, len(hashes))
        if seen and not kept:
            raise InputError(
                f"data: all {seen} samples to score are among those that calibrate; return a dict with the keys "
                "calibrate and evaluate, or ask for fewer with calibrate.samples"
            )
