"""Tries on disk, each under the hash of what its score follows from: a killed search loses only the one it was at."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bitwright.experiments.auto.result import Try
from bitwright.experiments.stage_store import replace_file

FOLDER = "tries"


class Tries:
    """One JSON file a try in `tries/` of the run's folder."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER

    def find(self, key: str) -> Try | None:
        """The finished try of that hash; None when there is none, or another version wrote it."""
        try:
            return Try.model_validate_json((self._folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def keep(self, done: Try) -> None:
        """Writes a finished try in one step."""
        self._folder.mkdir(exist_ok=True)
        replace_file(self._folder / f"{done.key}.json", done.model_dump_json(indent=1) + "\n")
