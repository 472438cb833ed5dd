"""Which floor imports which: read from the source, so that imports inside functions count, too."""

import ast
import re
from collections.abc import Iterator

FLOORS = ("quant", "hw_constraints", "qat", "nas", "experiments")
_NAMED = re.compile(r"bitwright\.(\w+)(?:\.\w+)*(?::\w+)?")


def imported_floors(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yields (line, floor) for every import of one of our floors.

    Dotted names in strings count: `import_module("bitwright.nas.spaces")` and registries reach as far as `import`.
    A floor under its bare name (`import quant`) is yielded as `!quant`.

    Args:
        source: a module's text.
        package: the package it is in, such as `bitwright.quant.passes`.
    """
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = (
                ".".join([*parents[: len(parents) + 1 - node.level], node.module or ""]) if node.level else node.module
            )
            names = [f"{base.strip('.')}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            names = [node.value] if _NAMED.fullmatch(node.value) else []
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "bitwright" and rest.split(".")[0] in FLOORS:
                yield node.lineno, rest.split(".")[0]
            elif first in FLOORS:
                yield node.lineno, f"!{first}"


def violations(source: str, package: str) -> list[str]:
    """The imports of a module that go up, or that use a floor's bare name, as `line N: …`."""
    own = FLOORS.index(package.split(".")[1])
    found = []
    for line, floor in imported_floors(source, package):
        if floor.startswith("!"):
            found.append(f"line {line}: import bitwright.{floor[1:]}, not {floor[1:]}")
        elif FLOORS.index(floor) > own:
            found.append(f"line {line}: {FLOORS[own]} imports from {floor}, which is above it")
    return found
