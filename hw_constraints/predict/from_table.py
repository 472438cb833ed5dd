"""The predictor of a table. What it learned is kept beside the table, so that the next one takes no time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.predict.calibration import (
    LeftOut,
    MeasuredNetwork,
    calibrate_latency,
    calibrate_ratio,
    fit_networks,
    leave_out,
)
from bitwright.hw_constraints.predict.conformal import LEVEL
from bitwright.hw_constraints.predict.features import NAMES
from bitwright.hw_constraints.predict.gaussian_process import Settings
from bitwright.hw_constraints.predict.kernel_models import KernelModels, samples_of
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
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
    samples, networks = samples_of(table) if table.measured else [], networks_of(table)
    kept = _Kept.of(table)
    models = KernelModels(samples, kept.settings)
    errors = kept.errors
    if errors is None:
        errors = leave_out(samples, models.settings, networks)
        kept.write(models.settings, errors)
    return LatencyPredictor(
        models=models,
        correction=fit_networks(models, networks),
        intervals=calibrate_latency(errors, level),
        ratios=calibrate_ratio(errors, level),
        runtime=table.key.runtime,
        where=str(table.key),
    )


def networks_of(table: KernelTable) -> list[MeasuredNetwork]:
    """The networks that the table has measured whole; `NAME/FORMAT` is how it names them."""
    return [
        MeasuredNetwork(name=row.name.partition("/")[0], kernels=row.kernels, us=us)
        for row in table.networks
        if not row.rejected and row.kernels and (us := row.ratio * table.reference_us) > 0
    ]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What was learned from a table's very content with this version's features.

    Attributes:
        file: beside the table.
        content_hash: the table's.
        settings: of the models; empty when nothing is kept.
        errors: of networks that were left out; None when nothing is kept.
    """

    file: Path
    content_hash: str
    settings: Mapping[str, Settings]
    errors: Sequence[LeftOut] | None

    @classmethod
    def of(cls, table: KernelTable) -> _Kept:
        file, content_hash = table.path.with_name(f"{table.path.name}.predictor.json"), table.content_hash
        with suppress(OSError, ValueError, KeyError, TypeError):
            record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if record["table"] == content_hash and record["features"] == list(NAMES):
                settings = {group: Settings.from_json(each) for group, each in record["settings"].items()}
                errors = [
                    LeftOut(name=name, number_format=number_format, log_error=error, spread=spread)
                    for name, number_format, error, spread in record["errors"]
                ]
                return cls(file=file, content_hash=content_hash, settings=settings, errors=errors)
        return cls(file=file, content_hash=content_hash, settings={}, errors=None)

    def write(self, settings: Mapping[str, Settings], errors: Sequence[LeftOut]) -> None:
        """Keeps it where that is possible; a folder that cannot be written only costs the time to learn again."""
        record = {
            "table": self.content_hash,
            "features": list(NAMES),
            "settings": {group: each.to_json() for group, each in settings.items()},
            "errors": [each.to_json() for each in errors],
        }
        partial = self.file.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(json.dumps(record), encoding="utf-8")
            partial.replace(self.file)
