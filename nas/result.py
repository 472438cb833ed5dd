"""What became of a candidate, in memory and on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bitwright.nas.space import Candidate, Value
from bitwright.quant.errors import InputError


class Outcome(StrEnum):
    """How far a candidate got."""

    SCORED = "scored"
    INFEASIBLE = "infeasible"  # the target or a limit of the recipe refuses it
    BEATEN = "beaten"  # given up: even the good ends of its intervals do not reach the front
    FAILED = "failed"  # something went wrong; neither good nor bad


class Violation(BaseModel):
    """A constraint that a candidate breaks: its name, by how much (above 0), and why, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    constraint: str
    amount: float
    reason: str


class Result(BaseModel):
    """What became of one candidate.

    Attributes:
        key: the candidate's hash.
        values: the candidate.
        outcome: how far it got.
        stage: the last stage that ran.
        violations: why it is infeasible.
        reason: why it failed, or what beats it.
        figures: what is known of it, by name; `figures.FIGURES` has units and origins.
        seconds: wall time of each stage that ran.
        network: the hash of the network with its formats, once that was captured.
        same_as: another candidate that is the same network, whose scores these are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    key: str
    values: dict[str, Value]
    outcome: Outcome
    stage: str
    violations: tuple[Violation, ...] = ()
    reason: str = ""
    figures: dict[str, float] = {}
    seconds: dict[str, float] = {}
    network: str | None = None
    same_as: str | None = None

    @property
    def trained_seconds(self) -> float:
        """Time spent on training it."""
        return self.seconds.get("train", 0.0)


@dataclass(frozen=True)
class ResultFiles:
    """Results in a folder, one file a candidate, under its hash: each appears whole or not at all."""

    folder: Path

    def get(self, key: str) -> Result | None:
        """The result of a candidate, if there is one.

        Raises:
            InputError: its file is damaged.
        """
        path = self.folder / f"{key}.json"
        try:
            return Result.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{path}: not a result ({first['msg']}); remove it to evaluate {key} again") from None

    def put(self, result: Result) -> None:
        """Writes a result, flushed to the disk."""
        replace_file(self.folder / f"{result.key}.json", result.model_dump_json(indent=1).encode() + b"\n")
        if result.network and result.outcome is Outcome.SCORED and result.same_as is None:
            replace_file(self._networks / result.network, result.key.encode())

    def same_network(self, network: str, candidate: Candidate) -> Result | None:
        """A scored result of another candidate that is the same network in the same formats."""
        try:
            key = (self._networks / network).read_text()
        except FileNotFoundError:
            return None
        known = self.get(key)
        return known if known and known.key != candidate.key else None

    @property
    def _networks(self) -> Path:
        """For each network the key of the candidate that was scored as it."""
        return self.folder.parent / "networks"


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file in one step, flushed to the disk: a reader sees the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
