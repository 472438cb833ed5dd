"""What a benchmark row leaves behind: one JSON record for each figure it has to reach."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bitwright.experiments import host

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Reach:
    """What a figure has to reach; of a figure with an interval, which end of it.

    Attributes:
        sign: on which side the limit lies.
        limit: in the unit of the figure.
        of: the figure itself, or the interval's end that has to keep the limit.
    """

    sign: Literal["≥", "≤", "="]
    limit: float
    of: Literal["value", "low", "high"] = "value"

    def holds(self, value: float, spread: tuple[float, float] | None) -> bool:
        """Whether the figure reaches it.

        Raises:
            ValueError: an interval's end is asked for and there is no interval.
        """
        if self.of != "value":
            if spread is None:
                raise ValueError(f"{self}: the figure has no interval")
            value = spread[0] if self.of == "low" else spread[1]
        equal = math.isclose(value, self.limit, rel_tol=1e-9)  # a share is a sum: 100 may lack its last bit
        return {"≥": value >= self.limit, "≤": value <= self.limit, "=": equal}[self.sign]

    def __str__(self) -> str:
        end = {"value": "", "low": "lower 95 % bound ", "high": "upper 95 % bound "}[self.of]
        return f"{end}{self.sign} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One figure of one run.

    Attributes:
        row: the row's name, and after a dot the figure's.
        area: the part of the toolkit that it tests.
        value: the figure.
        unit: its unit.
        reach: what it has to reach; empty for figures that are only printed.
        holds: whether it does; None where there is nothing to reach.
        n: how many images, repetitions or cases stand behind it.
        spread: its 95 % interval over those, where there is one.
        versions: of the packages and the machine.
        date: when it was taken, UTC.
        table: the figures beside it (ours and the peers'), a mapping a line.
    """

    row: str
    area: str
    value: float
    unit: str
    reach: str
    holds: bool | None
    n: int
    spread: tuple[float, float] | None
    versions: Mapping[str, str]
    date: str
    table: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def record(
    row: str,
    *,
    area: str,
    value: float,
    unit: str,
    n: int,
    reach: Reach | None = None,
    spread: tuple[float, float] | None = None,
    peers: Mapping[str, str] | None = None,
    table: Sequence[Mapping[str, Any]] = (),
) -> Record:
    """A record of now, on this machine.

    Args:
        row: `ROW.FIGURE`.
        area: the part of the toolkit that it tests.
        value: the figure.
        unit: its unit.
        n: how many observations stand behind it.
        reach: what it has to reach, if anything.
        spread: its 95 % interval.
        peers: versions of the peers in the same run.
        table: the figures beside it.
    """
    return Record(
        row=row,
        area=area,
        value=value,
        unit=unit,
        reach=str(reach) if reach else "",
        holds=reach.holds(value, spread) if reach else None,
        n=n,
        spread=spread,
        versions={**versions(), **(peers or {})},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        table=table,
    )


def write(row: str, records: Sequence[Record], folder: Path = RESULTS) -> Path:
    """Writes a row's records as one JSON list; replaces those of the last run at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{row}.json"
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(entry) for entry in records], indent=1, ensure_ascii=False) + "\n")
    partial.rename(file)
    return file


def read_all(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Every row's records by the row's name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def versions() -> dict[str, str]:
    """Packages, interpreter, commit and processor of this run."""
    machine, git = host.host(), host.git_state(Path(__file__).parent)
    return {
        **host.versions(),
        "commit": f"{git.commit[:12]}{' with changes' if git.dirty else ''}" if git else "unknown",
        "cpu": f"{machine.cpu}, {machine.cores} cores",
        "isa": " ".join(machine.isa),
    }
