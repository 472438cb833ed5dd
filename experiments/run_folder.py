"""The folder of a run: claimed by one process at a time, and by one recipe."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.stage_store import StageStore, replace_file
from bitwright.quant.errors import InputError

LOCK = ".lock"
RESOLVED = "recipe.resolved.yaml"
RECORD = "record.json"


@contextmanager
def claim(folder: Path, recipe: Recipe) -> Iterator[StageStore]:
    """Makes the folder, or takes it up again, for as long as the run lasts.

    Raises:
        InputError: it is not writable, holds something else, or another run is in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_contents(folder, recipe)
        lock = (folder / LOCK).open("a+", encoding="utf-8")
    except NotADirectoryError:
        raise InputError(f"{folder}: not a folder; name another one with --out") from None
    except FileExistsError:
        raise InputError(f"{folder}: is a file; name another folder with --out") from None
    except OSError as error:
        raise InputError(f"{folder}: not writable ({error.strerror}); name another folder with --out") from None
    with lock:
        _lock(lock.fileno(), folder)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        store = StageStore(folder / "stages")
        store.root.mkdir(exist_ok=True)
        store.clean()
        replace_file(folder / RESOLVED, resolved_yaml(recipe))
        yield store


def _check_contents(folder: Path, recipe: Recipe) -> None:
    contents = {path.name for path in folder.iterdir()} - {LOCK}
    if not contents:
        return
    if RESOLVED not in contents:
        raise InputError(f"{folder}: not empty, and no run of Bitwright; name another folder with --out")
    name = _name_in(folder / RESOLVED)
    if name != recipe.name:
        raise InputError(
            f"{folder}: holds a run of recipe {name!r}, this one is {recipe.name!r}; name another folder with --out"
        )


def _name_in(resolved: Path) -> str:
    """The recipe's name.

    Raises:
        InputError: the file is damaged.
    """
    try:
        name = yaml.safe_load(resolved.read_text(encoding="utf-8"))["name"]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        raise InputError(
            f"{resolved}: damaged, so that nothing says which recipe ran here; name another folder with --out"
        ) from None
    return str(name)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = (folder / LOCK).read_text(encoding="utf-8") or "unknown"
        raise InputError(
            f"{folder}: process {owner} is running in this folder; wait for it, or name another folder with --out"
        ) from None


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with all defaults and overrides in place; it can be run as it stands."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
