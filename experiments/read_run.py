"""Reads a run back from its folder: the record, and each stage's result as its own class."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bitwright.experiments.record import Record
from bitwright.experiments.run_folder import RECORD
from bitwright.quant.errors import InputError

Result = TypeVar("Result", bound=BaseModel)
_OTHER_VERSION = "written by another version of Bitwright: run the recipe again"


def read_record(folder: Path) -> Record:
    """The record of a run.

    Raises:
        InputError: the folder holds no run, or its record was written by another version or damaged.
    """
    path = folder / RECORD
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the folder of a run (bitwright run … --out FOLDER)") from None
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: {place}: {first['msg']}; damaged, or {_OTHER_VERSION}") from None


def result_of(record: Record, stage: str, model: type[Result]) -> Result | None:
    """A stage's result; None when the stage was not asked for, or has not finished.

    Raises:
        InputError: the result has another shape than this version of Bitwright writes.
    """
    done = record.stages.get(stage)
    if done is None or done.status not in ("done", "reused"):
        return None
    try:
        return model.model_validate(done.result)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("stages", stage, "result", *first["loc"])))
        raise InputError(f"run {record.name!r}: {place}: {first['msg']}; {_OTHER_VERSION}") from None
