"""Data sets that recipes name, one a file: `DATASET` gives the settings and opens the data (torch is imported then)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    import torch


class Split(StrEnum):
    """What a part of the data is for."""

    TRAIN = "train"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"


Loader = Iterable[Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network learns, where that is no class: of its first output [N, …] and the labels [N, …].

    Attributes:
        loss: `loss(output, labels)`, a scalar.
        distil: `distil(output, teacher's output)`, a scalar.
    """

    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    distil: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Opened data.

    Attributes:
        loader: `loader(split, batch, seed)` gives batches; the same arguments give the same batches. A seed shuffles.
        splits: how many samples each split has; None where a loader does not say.
        fingerprint: changes when the data change; results that came from other data are not reused.
        classes: how many classes the labels have.
        ignore_label: the label that no metric counts.
        notes: what was skipped on the way, for the record.
        task: what is learned; classes by cross-entropy when there is none.
    """

    loader: Callable[[Split, int, int | None], Loader]
    splits: Mapping[Split, int | None]
    fingerprint: str
    classes: int | None = None
    ignore_label: int | None = None
    notes: list[str] = field(default_factory=list)
    task: Task | None = None


@dataclass(frozen=True, kw_only=True)
class DataSetKind:
    """A registered data set.

    Attributes:
        settings: what a recipe may say about it.
        open: opens it from checked settings.
    """

    settings: type[BaseModel]
    open: Callable[[Any], Data]


NO_SPLITS: Mapping[Split, int | None] = MappingProxyType({})
