"""The user's own functions that make up a network's `forward`, as they are written.

They are read from the classes, so that they are known even where the network cannot be captured. Torch-free.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from bitwright.quant.graph import SourceLine

# Packages whose modules are no user's code.
_LIBRARIES = ("torch", "torchvision", "timm")


class HasModules(Protocol):
    """What is asked of a network: `torch.nn.Module` has it."""

    def modules(self) -> Iterable[Any]:
        """The network and every module in it."""


@dataclass(frozen=True, kw_only=True)
class SourceFunction:
    """One function of a module's class.

    Attributes:
        file: where it is written.
        first_line: the file's line on which `text` starts.
        text: the function, without its indentation.
        owner: the class's name.
    """

    file: str
    first_line: int
    text: str
    owner: str

    def tree(self) -> ast.FunctionDef | None:
        """Its syntax tree; None for text that is no function (a lambda in the middle of a line)."""
        try:
            body = ast.parse(self.text).body
        except SyntaxError:
            return None
        return body[0] if body and isinstance(body[0], ast.FunctionDef) else None

    def line(self, node: ast.expr | ast.stmt) -> SourceLine:
        """The file's line on which a part of the tree starts."""
        return SourceLine(self.file, self.first_line + node.lineno - 1, self.text.splitlines()[node.lineno - 1].strip())


def functions_of(network: HasModules) -> tuple[SourceFunction, ...]:
    """`forward` of every class of modules that is not torch's own, and the methods that it calls on itself."""
    classes = dict.fromkeys(type(module) for module in network.modules())
    found = [function for each in classes if not _is_library(each) for function in _of_class(each)]
    return tuple({(each.file, each.first_line): each for each in found}.values())


def _is_library(owner: type) -> bool:
    return owner.__module__.split(".")[0] in _LIBRARIES


def _of_class(owner: type) -> Iterator[SourceFunction]:
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        function = _read(owner, waiting.pop())
        if function is None:
            continue
        yield function
        tree = function.tree()
        called = {name for part in ast.walk(tree) if (name := _own_method(part))} if tree else set()
        waiting += sorted(called - seen)
        seen |= called


def _read(owner: type, name: str) -> SourceFunction | None:
    method = inspect.unwrap(getattr(owner, name, None) or (lambda: None))
    if not inspect.isfunction(method) or method.__module__.split(".")[0] in _LIBRARIES:
        return None
    try:
        lines, first = inspect.getsourcelines(method)
    except (OSError, TypeError):  # made at run time, or in an interactive session
        return None
    return SourceFunction(
        file=method.__code__.co_filename, first_line=first, text=textwrap.dedent("".join(lines)), owner=owner.__name__
    )


def _own_method(part: ast.AST) -> str:
    match part:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
            return name
    return ""
