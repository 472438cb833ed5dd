"""Opens the data that a recipe names: a registered kind, or the loaders that the user's own entry returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bitwright.experiments.datasets import NO_SPLITS, Data, DataSetKind, Loader, Split
from bitwright.experiments.entries import call_entry, entry_fingerprint, wrong_result
from bitwright.experiments.extensions import DATASETS
from bitwright.experiments.recipe_data import DataSection
from bitwright.quant.errors import InputError

_EXPECTED = (
    "an iterable of batches that can be read more than once, or a dict of such with the keys train, calibrate, evaluate"
)


def open_data(section: DataSection) -> Data:
    """Opens data.

    Raises:
        InputError: the data cannot be read, or an entry returned something else than loaders.
    """
    if section.kind is not None:
        kind: DataSetKind = DATASETS.load(section.kind)
        return kind.open(kind.settings.model_validate(section.settings))
    assert section.entry is not None
    entry = section.entry
    result = call_entry("data.entry", entry, **section.settings.get("arguments", {}))
    loaders = _loaders(entry, result)

    def loader(split: Split, batch: int, seed: int | None) -> Loader:
        # The user's loader decides about batch size and order.
        if split not in loaders:
            raise InputError(f"data.entry = {entry!r}: returned no loader {split.value!r}; it has {sorted(loaders)}")
        return _FreshEachTime(loaders[split], entry)

    return Data(loader=loader, splits=NO_SPLITS, fingerprint=entry_fingerprint(entry))


def _loaders(entry: str, result: Any) -> Mapping[str, Loader]:
    loaders = result if isinstance(result, Mapping) else {each.value: result for each in Split}
    unknown = sorted(set(loaders) - {each.value for each in Split}, key=str)
    if unknown or not loaders:
        raise InputError(
            f"data.entry = {entry!r}: returned a dict with the keys {sorted(loaders, key=str)}; expected {_EXPECTED}"
        )
    for each in loaders.values():
        if not isinstance(each, Iterable) or isinstance(each, str | bytes):
            raise wrong_result("data.entry", entry, each, _EXPECTED)
        if isinstance(each, Iterator):
            raise InputError(
                f"data.entry = {entry!r}: returned {type(each).__name__}, which can be read only once; return a list, "
                "a DataLoader or an object with __iter__"
            )
    return loaders


class _FreshEachTime:
    """Reads the user's loader, and says so when it is empty."""

    def __init__(self, loader: Loader, entry: str) -> None:
        self.batches, self.entry = loader, entry

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for batch in self.batches:
            empty = False
            yield batch
        if empty:
            raise InputError(f"data.entry = {self.entry!r}: its loader gave no batch")
