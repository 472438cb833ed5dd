"""Finds target files and reads them together with what they extend.

Names come from file names and from the entry points `bitwright.targets`, so listing them imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError
from bitwright.quant.extension_point import ExtensionPoint
from bitwright.quant.yaml_lines import KeyPath, Locations, load

FOLDER = Path(__file__).parent / "targets"
_LARGEST = 256 * 1024  # bytes; ours have up to ten thousand
# What a file says of itself alone.
_OWN_KEYS = ("id", "version", "description", "extends")


TARGETS = ExtensionPoint(
    kind="target", package="bitwright.hw_constraints.targets", marker=".yaml", group="bitwright.targets"
)


def target_names() -> tuple[str, ...]:
    """Names of all targets: ours, and those that installed packages register.

    Raises:
        InputError: a name is registered twice.
    """
    return TARGETS.names()


def find(name_or_path: str | Path) -> Path:
    """The file of a target, given its name or a path that ends in `.yaml`.

    An entry point `NAME = "package.module:ATTRIBUTE"` holds the path of its file in that attribute.

    Raises:
        InputError: no such name or file; the choices are listed.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")):
        if not Path(text).is_file():
            raise InputError(f"{text}: no such target file; targets by name: {', '.join(target_names())}")
        return Path(text)
    TARGETS.check(text)
    if not TARGETS.is_ours(text):
        return Path(TARGETS.load(text))
    return FOLDER / f"{text}.yaml"


def read(path: Path) -> tuple[dict[str, Any], Locations]:
    """A target file with everything it inherits; the locations say in which file each value was written.

    Mappings are merged key by key; every other value of the child replaces the parent's, and null takes it away.

    Raises:
        InputError: a file cannot be read, or `extends` leads back to a file that it came from.
    """
    return _read(path, ())


def _read(path: Path, trail: tuple[Path, ...]) -> tuple[dict[str, Any], Locations]:
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes; a target file has at most {_LARGEST}")
    data, locations = load(path)
    parent = data.get("extends")
    if parent is None:
        return data, locations
    where = locations.where(("extends",))
    if not isinstance(parent, str):
        raise InputError(f"{where}: extends = {parent!r}; expected the name of a target or the path of its file")
    beside = path.parent / parent
    try:
        parent_path = beside if parent.endswith(".yaml") and beside.is_file() else find(parent)
    except InputError as error:
        raise InputError(f"{where}: extends: {error}") from None
    trail = (*trail, path.resolve())
    if parent_path.resolve() in trail:
        names = " -> ".join(each.stem for each in (*trail, parent_path))
        raise InputError(f"{where}: extends = {parent!r}; it is circular ({names})")
    inherited, inherited_locations = _read(parent_path, trail)
    for key in _OWN_KEYS:
        inherited.pop(key, None)
    elsewhere = {key: inherited_locations.where(key) for key in _paths(inherited, ()) if not _is_written(data, key)}
    return _merge(inherited, data), Locations(locations.file, locations.lines, elsewhere)


def _merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        if value is None and old is not None:
            del merged[key]
        else:
            merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _is_written(data: Any, path: KeyPath) -> bool:
    """Whether a document decides the value at a path: it has the key, or something that is no mapping above it."""
    for key in path:
        if not isinstance(data, dict):
            return True
        if key not in data:
            return False
        data = data[key]
    return True
