"""What a row found of one network, kept until the code that found it changes: a run that was cut off goes on there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bitwright.experiments.stage_store import source_hash


def kept(
    folder: Path, name: str, identity: str, code: Sequence[str], look: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The line of a table, looked for once.

    Args:
        folder: where lines are kept.
        name: whose line it is.
        identity: what else decides the line, beside the code.
        code: modules and packages of `bitwright` whose source decides it.
        look: finds the line.
    """
    file = folder / f"{name}-{digest(identity, code)}.json"
    if not file.exists():
        line = look()
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(line, ensure_ascii=False))
        partial.rename(file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def digest(identity: str, code: Sequence[str]) -> str:
    """Twelve digits that change with the identity and with the source of modules and packages of `bitwright`."""
    parts = [identity, *(source_hash(f"bitwright.{module}") for module in code)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
