"""The record of a run, `record.json`, and its published schema, `record.schema.json`.

Every figure says where it comes from. The schema is generated from these models:
`python -m bitwright.experiments.record` prints it, and a test compares it with the committed one.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """What all parts of a record share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Part):
    """A number that carries where it came from.

    Attributes:
        value: the number itself; for repeated measurements the median.
        unit: `%`, `ms`, `dB`, `bytes`, `1` for ratios.
        origin: measured here, modelled, or quoted from a source.
        low: lower end of the 95 % interval, where one is known.
        high: upper end.
        spread: interquartile range of repeated measurements, in the same unit.
        n: how many samples or rounds it rests on.
        source: what it was measured with, or the document it is quoted from.
    """

    value: float
    unit: str
    origin: Literal["measured", "modelled", "quoted"]
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    n: int | None = None
    source: str = ""


class Gate(Part):
    """A condition of the recipe and whether it holds; `holds` is None when it could not be checked, with the reason."""

    name: str
    holds: bool | None
    wanted: str
    found: str


class StageRecord(Part):
    """One stage of the run.

    Attributes:
        status: `done` now, `reused` from an earlier run, `failed`, `skipped` because the recipe does not ask for it.
        key: the hash of everything that its result follows from.
        seconds: how long it took when it ran.
        files: what it wrote, below the run folder.
        result: its own data; `bitwright.experiments.results` has the class of each stage.
        reason: why it ran again, was skipped or failed.
    """

    status: Literal["done", "reused", "failed", "skipped"]
    key: str = ""
    seconds: float = 0.0
    files: tuple[str, ...] = ()
    result: dict[str, Any] = {}
    reason: str = ""


class Host(Part):
    """The machine, as far as its figures depend on it; `isa` are the instruction sets that decide about kernels."""

    system: str
    architecture: str
    cpu: str
    cores: int
    isa: tuple[str, ...]
    memory_bytes: int | None
    accelerators: tuple[str, ...] = ()


class Git(Part):
    """The state of the folder that the run was started in."""

    commit: str
    dirty: bool


class Record(Part):
    """One run: what was asked for, where and with what it ran, what each stage found, and the verdict."""

    schema_version: Literal[1] = 1
    name: str
    description: str
    target: str
    seed: int
    started: str
    finished: str | None
    versions: dict[str, str]
    git: Git | None
    host: Host
    recipe: dict[str, Any]
    stages: dict[str, StageRecord]
    gates: tuple[Gate, ...] = ()
    passed: bool | None = Field(default=None, description="None while the run is not finished")


def schema() -> str:
    """The JSON schema of `record.json`."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Record.model_json_schema(),
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
