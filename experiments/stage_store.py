"""Results on disk, found again by the hash of everything they follow from.

A stage writes into `stages/.NAME.partial`; the manifest comes last, flushed to the disk, and then one rename makes the
folder `stages/NAME`. So a stage that was interrupted, however, never counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bitwright.experiments.stage import FinishedStage, Stage

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a stage's result follows from, readable, so that a run can say why a stage runs again."""

    parts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The hash of all of it."""
        text = json.dumps(self.parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def changed_since(self, earlier: Mapping[str, Any]) -> str:
        """Which parts differ, in words."""
        return ", ".join(sorted(name for name in {*self.parts, *earlier} if self.parts.get(name) != earlier.get(name)))


@dataclass(frozen=True)
class StageStore:
    """The `stages/` folder of a run."""

    root: Path

    def clean(self) -> None:
        """Removes what interrupted stages left behind."""
        for path in self.root.glob(".*"):
            shutil.rmtree(path)

    def find(self, name: str) -> tuple[FinishedStage, Mapping[str, Any]] | None:
        """A finished stage and its ingredients; None when there is none or one of its files was removed or cut."""
        folder = self.root / name
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, int] = manifest["files"]
            intact = all((folder / file).stat().st_size == size for file, size in files.items())
            done = FinishedStage(
                folder=folder,
                key=manifest["key"],
                seconds=manifest["seconds"],
                files=tuple(files),
                result=manifest["result"],
            )
            return (done, manifest["ingredients"]) if intact else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, name: str) -> Path:
        """An empty folder for the stage to write into."""
        partial = self.root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def abandon(self, name: str) -> None:
        """Removes what an unfinished stage wrote."""
        shutil.rmtree(self.root / f".{name}.partial", ignore_errors=True)

    def commit(self, name: str, ingredients: Ingredients, result: Mapping[str, Any], seconds: float) -> FinishedStage:
        """Makes the stage's folder final; an older one of that name goes."""
        partial, final, old = self.root / f".{name}.partial", self.root / name, self.root / f".{name}.old"
        files = {str(path.relative_to(partial)): path.stat().st_size for path in sorted(_files(partial))}
        manifest: dict[str, Any] = {
            "key": ingredients.key,
            "seconds": seconds,
            "files": files,
            "result": result,
            "ingredients": ingredients.parts,
        }
        for file in files:
            _flush(partial / file)
        write_flushed(partial / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        if final.exists():
            final.rename(old)
        partial.rename(final)
        _flush(self.root)
        shutil.rmtree(old, ignore_errors=True)
        return FinishedStage(
            folder=final, key=ingredients.key, seconds=seconds, files=tuple(files), result=manifest["result"]
        )


def write_flushed(path: Path, text: str) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str) -> None:
    """Replaces a file in one step: a reader sees the old or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    write_flushed(partial, text)
    partial.replace(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def code_hash(stage: Stage) -> str:
    """The source that a stage's result follows from: its own file and the packages it names."""
    digest = hashlib.sha256(Path(inspect.getfile(stage.run)).read_bytes())
    for package in stage.code:
        digest.update(source_hash(package).encode())
    return digest.hexdigest()


@cache
def source_hash(package: str) -> str:
    """The source of a module, or of everything in a package.

    Raises:
        ModuleNotFoundError: a stage names one that does not exist.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"a stage names the package {package!r}, which does not exist")
    digest = hashlib.sha256()
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".yaml", ".j2"))
    for file in files or [Path(spec.origin)]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
