"""One file is one extension: names come from file names and entry-point metadata, without importing what they name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class ExtensionPoint:
    """A folder in which each file is one extension, and the entry-point group where third parties add theirs.

    Attributes:
        kind: what one is called in messages.
        package: the folder, by its import name.
        marker: the name that a file assigns or defines when it is an extension; its value is what `load` returns.
            Files without it (shared parts) are not listed. For data files the suffix, such as `.yaml`.
        group: the entry-point group.
    """

    kind: str
    package: str
    marker: str
    group: str

    def names(self) -> tuple[str, ...]:
        """All names, sorted.

        Raises:
            InputError: a name is registered twice.
        """
        every = [*_files(self.package, self.marker), *(point.name for point in self._entry_points())]
        for name in every:
            if every.count(name) > 1:
                raise InputError(
                    f"{self.kind} {name!r} is registered twice; uninstall one of the packages that bring it"
                )
        return tuple(sorted(every))

    def check(self, name: str) -> None:
        """Raises an `InputError` that lists the choices when there is no such name."""
        if name not in self.names():
            raise unknown(self.kind, name, self.names())

    def is_ours(self, name: str) -> bool:
        """Whether the name is shipped with Bitwright, so that importing it runs no third party's code."""
        return name in _files(self.package, self.marker)

    def load(self, name: str) -> Any:
        """Imports the extension and returns the object behind its marker, or a third party's registered object.

        Raises:
            InputError: there is none of that name.
        """
        if self.is_ours(name):  # first, since the metadata of everything that is installed takes its time to read
            return getattr(importlib.import_module(f"{self.package}.{name}"), self.marker)
        self.check(name)
        return next(point for point in self._entry_points() if point.name == name).load()

    def _entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=self.group))


@cache
def _files(package: str, marker: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(package)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    if marker.startswith("."):
        names = (path.stem for folder in folders for path in folder.glob(f"*{marker}"))
        return tuple(sorted(name for name in names if not name.startswith("_")))  # the others are parts of several
    defined = re.compile(rf"^(?:class\s+)?{marker}\b", re.MULTILINE)
    files = (path for folder in folders for path in folder.glob("*.py") if path.stem != "__init__")
    return tuple(sorted(path.stem for path in files if defined.search(path.read_text(encoding="utf-8"))))
