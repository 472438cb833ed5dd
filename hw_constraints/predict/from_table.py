"""The predictor of a table. What it learned is kept beside the table, so that the next one takes no time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from bitwright.hw_constraints import kernels
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.kernels.split import split
from bitwright.hw_constraints.predict.calibration import (
    LeftOut,
    MeasuredNetwork,
    calibrate_latency,
    calibrate_ratio,
    fit_networks,
    leave_out,
)
from bitwright.hw_constraints.predict.conformal import LEVEL
from bitwright.hw_constraints.predict.gaussian_process import Settings
from bitwright.hw_constraints.predict.heavy_networks import draw_heavy_network
from bitwright.hw_constraints.predict.kernel_models import KernelModels, samples_of
from bitwright.hw_constraints.predict.network_terms import Correction
from bitwright.hw_constraints.predict.planned_model import float_model, planned_model
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.predict.random_networks import RandomNetwork, draw_network
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.target import load_target
from bitwright.quant.plan import plan


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
    samples = samples_of(table) if table.measured else []
    kept = _Kept.of(table)
    models = KernelModels(samples, kept.settings)
    if kept.correction is None:
        networks = networks_of(table)
        errors = tuple(leave_out(samples, models.settings, networks))
        kept = replace(kept, settings=models.settings, errors=errors, correction=fit_networks(models, networks))
        kept.write()
    assert kept.correction is not None
    return LatencyPredictor(
        models=models,
        correction=kept.correction,
        intervals=calibrate_latency(kept.errors, level),
        ratios=calibrate_ratio(kept.errors, level),
        rules=rules_of(table),
        where=str(table.key),
    )


def rules_of(table: KernelTable) -> FusionRules:
    """What fuses on the table's runtime: as was found when it was measured, else as is known of the runtime.

    Raises:
        InputError: the table does not say, and the runtime is not a known one.
    """
    found = table.facts.get(FUSION_RULES)
    return known_rules(table.key.runtime) if found is None else FusionRules.from_json(found)


def networks_of(table: KernelTable) -> list[MeasuredNetwork]:
    """The networks that the table has measured whole: drawn again by their names, and split as networks are today."""
    found, rules = [], rules_of(table)
    for row in table.networks:
        name, _, number_format = row.name.partition("/")
        us = row.ratio * table.reference_us
        network = _drawn(name)
        if row.rejected or not us > 0 or network is None:
            continue
        model = float_model(network.graph) if number_format == "float32" else _planned(network)
        parts = split(model, table.key.runtime, rules)
        placed = tuple(each.kernel for each in parts.kernels)
        found.append(MeasuredNetwork(name=name, kernels=placed, inputs=parts.inputs, outputs=parts.outputs, us=us))
    return found


def _drawn(name: str) -> RandomNetwork | None:
    """The network of a name; None when it is not one of those that are drawn."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind, seed, number = match[1], int(match[2]), int(match[3])
    return draw_network(seed, number) if kind == "random" else draw_heavy_network(seed, number)


def _planned(network: RandomNetwork) -> onnx.ModelProto:
    return planned_model(network.graph, plan(network.graph, load_target(_TARGET).scheme()))


FUSION_RULES = "fusion_rules"  # the name of the table's fact
_NAME = re.compile(r"(random|heavy)-(\d+)-(\d+)")
_TARGET = "x86-vnni"  # all targets for processors plan the same int8 for what is drawn


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What was learned from a table's very content with this version's features.

    Attributes:
        file: beside the table.
        content_hash: the table's.
        settings: of the models; empty when nothing is kept.
        errors: of networks that were left out.
        correction: from kernels to networks; None when nothing is kept.
    """

    file: Path
    content_hash: str
    settings: Mapping[str, Settings] = field(default_factory=dict)
    errors: tuple[LeftOut, ...] = ()
    correction: Correction | None = None

    @classmethod
    def of(cls, table: KernelTable) -> _Kept:
        file, content_hash = table.path.with_name(f"{table.path.name}.predictor.json"), table.content_hash
        with suppress(OSError, ValueError, KeyError, TypeError):
            record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if record["table"] == content_hash and record["code"] == _code():
                settings = {group: Settings.from_json(each) for group, each in record["settings"].items()}
                errors = tuple(
                    LeftOut(name=name, number_format=number_format, log_error=error, spread=spread)
                    for name, number_format, error, spread in record["errors"]
                )
                correction = Correction.from_json(record["correction"])
                return cls(
                    file=file, content_hash=content_hash, settings=settings, errors=errors, correction=correction
                )
        return cls(file=file, content_hash=content_hash)

    def write(self) -> None:
        """Keeps it where that is possible; a folder that cannot be written only costs the time to learn again."""
        assert self.correction is not None
        record = {
            "table": self.content_hash,
            "code": _code(),
            "settings": {group: each.to_json() for group, each in self.settings.items()},
            "errors": [each.to_json() for each in self.errors],
            "correction": self.correction.to_json(),
        }
        partial = self.file.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(json.dumps(record), encoding="utf-8")
            partial.replace(self.file)


@cache
def _code() -> str:
    """A hash of what predictions follow from besides the table: kernels and their models."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(kernels.__file__).parent):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
