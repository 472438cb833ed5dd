"""Names that a package offers without importing the modules they live in (PEP 562)."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any


def lazy_attributes(package: str, file: str) -> Callable[[str], Any]:
    """A module-level `__getattr__` that imports a name when it is first asked for.

    Where a name lives is read from the imports under `if TYPE_CHECKING:` in the package's `__init__`, so that type
    checkers and the interpreter follow the very same lines.

    Args:
        package: the package's `__name__`.
        file: its `__file__`.
    """

    @cache
    def homes() -> dict[str, str]:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        return {alias.name: node.module or "" for node in _guarded_imports(tree) for alias in node.names}

    def get(name: str) -> Any:
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes()[name]), name)
        setattr(sys.modules[package], name, value)  # found directly from now on
        return value

    return get


def _guarded_imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    for block in tree.body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            yield from (node for node in block.body if isinstance(node, ast.ImportFrom))
