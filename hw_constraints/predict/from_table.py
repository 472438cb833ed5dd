"""The predictor of a table. What it learned is kept beside the table, so that the next one takes no time."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.predict.conformal import LEVEL
from bitwright.hw_constraints.predict.features import NAMES
from bitwright.hw_constraints.predict.gaussian_process import Settings
from bitwright.hw_constraints.predict.kernel_models import KernelModels, samples_of, settings_from_json
from bitwright.hw_constraints.predict.predictor import LatencyPredictor, MeasuredNetwork, fit_predictor
from bitwright.hw_constraints.table import KernelTable, TableKey


def load_predictor(path: Path, *, key: TableKey | None = None, level: float = LEVEL) -> LatencyPredictor:
    """Reads a table and fits its predictor.

    Args:
        path: the table's file.
        key: what the table has to hold for; None takes any.
        level: how often intervals cover.

    Raises:
        InputError: there is no such table, it is damaged or empty, or it holds for something else.
    """
    return predictor_of(KernelTable.load(path, key=key), level=level)


def predictor_of(table: KernelTable, *, level: float = LEVEL) -> LatencyPredictor:
    """The predictor of a table in memory.

    Raises:
        InputError: the table has no measured kernel.
    """
    kept = _kept_file(table.path)
    models = KernelModels(samples_of(table) if table.measured else [], _read(kept, table.content_hash))
    _write(kept, table.content_hash, models.settings)
    return fit_predictor(models, networks_of(table), runtime=table.key.runtime, where=str(table.key), level=level)


def networks_of(table: KernelTable) -> list[MeasuredNetwork]:
    """The networks that the table has measured whole; the name's last part is the format."""
    return [
        MeasuredNetwork(name=row.name.removesuffix("-int8").removesuffix("-float32"), kernels=row.kernels, us=us)
        for row in table.networks
        if not row.rejected and row.kernels and (us := row.ratio * table.reference_us) > 0
    ]


def _kept_file(table: Path) -> Path:
    return table.with_name(f"{table.name}.predictor.json")


def _read(file: Path, content_hash: str) -> dict[str, Settings]:
    """What was learned from this very content with these features; nothing otherwise."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if record["table"] == content_hash and record["features"] == list(NAMES):
            return settings_from_json(record["settings"])
    return {}


def _write(file: Path, content_hash: str, settings: dict[str, Settings]) -> None:
    """Keeps it where that is possible; a folder that cannot be written only costs the time to learn again."""
    record = {
        "table": content_hash,
        "features": list(NAMES),
        "settings": {group: each.to_json() for group, each in settings.items()},
    }
    partial = file.with_suffix(".partial")
    with suppress(OSError):
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(file)
