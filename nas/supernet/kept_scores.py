"""Scores in a folder, one file each: looked for once, whole or not there, so that a run goes on where it was cut."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitwright.nas.result import replace_file
from bitwright.quant.errors import InputError


@dataclass(frozen=True)
class KeptScores:
    """Scores by name; `folder` has to be one of its own for everything that scores follow from."""

    folder: Path

    def score(self, name: str, look: Callable[[], float]) -> float:
        """The score of a name: from its file, else found and kept.

        Raises:
            InputError: the file is damaged, or what was found is no finite number.
        """
        path = self.folder / f"{name}.json"
        try:
            return float(json.loads(path.read_bytes())["score"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a score ({error}); remove it to find it again") from None
        found = look()
        if not math.isfinite(found):
            raise InputError(f"{path}: the score became {found}; nothing is kept")
        replace_file(path, json.dumps({"score": found}).encode())
        return found
