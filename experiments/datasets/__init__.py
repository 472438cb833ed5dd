"""Data sets that recipes name, one a file: `DATASET` gives the settings and opens the data (torch is imported then)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel


class Split(StrEnum):
    """What a part of the data is for."""

    TRAIN = "train"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"


Loader = Iterable[Any]


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
    """

    loader: Callable[[Split, int, int | None], Loader]
    splits: Mapping[Split, int | None]
    fingerprint: str
    classes: int | None = None
    ignore_label: int | None = None
    notes: list[str] = field(default_factory=list)


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
