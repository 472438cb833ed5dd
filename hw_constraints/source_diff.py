"""The change to make by hand, as a unified diff of the user's file. Nothing is ever written there.

Where the call that a node came from can be told from the line's syntax tree, its text is replaced by the new
expression; else a comment above the line says what to change.
"""

from __future__ import annotations

import ast
import difflib
import linecache
from collections.abc import Iterator
from functools import lru_cache

from bitwright.hw_constraints.fixes.base import ByHand
from bitwright.hw_constraints.lint_report.baseline import relative
from bitwright.hw_constraints.source_focus import focus
from bitwright.quant.graph import Node

_CONTEXT = 2  # lines of the file around a change


def source_diff(node: Node, change: ByHand) -> str:
    """The diff for the line that a node came from; empty when the line is not known."""
    if node.source is None:
        return ""
    lines = linecache.getlines(node.source.file)
    known = 0 < node.source.line <= len(lines)
    if not known:
        lines = [f"{node.source.text}\n"] if node.source.text else []
    if not lines:
        return ""
    number = node.source.line if known else 1
    changed = _replaced(lines, number, node, change)
    if changed is None:
        changed = [*lines[: number - 1], _comment(lines[number - 1], change, node), *lines[number - 1 :]]
    path = relative(node.source.file).lstrip("/")  # as git writes it, so that `git apply` reads it
    diff = difflib.unified_diff(lines, changed, f"a/{path}", f"b/{path}", n=_CONTEXT)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in diff)


def _comment(line: str, change: ByHand, node: Node) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    where = f"{node.module_path}: " if node.module_path else ""
    text = change.note or f"write {change.expression.format_map(_Spoken())}"
    return f"{indent}# {where}{text}\n"


class _Spoken(dict[str, str]):
    """For an expression outside any line: `{x}` is called `x`."""

    def __missing__(self, key: str) -> str:
        return key


def _replaced(lines: list[str], number: int, node: Node, change: ByHand) -> list[str] | None:
    """The file with the call replaced; None when it cannot be told which part of the line made it."""
    if not change.expression:
        return None
    text = "".join(lines)
    spots = [spot for spot in _spots(text, number, node)]
    if len(spots) != 1:
        return None
    (place, words) = spots[0]
    assert place.end_lineno is not None and place.end_col_offset is not None
    first, last = place.lineno - 1, place.end_lineno - 1
    # Columns of the syntax tree count bytes.
    before = lines[first].encode()[: place.col_offset].decode()
    after = lines[last].encode()[place.end_col_offset :].decode()
    try:
        written = _computed_once(change.expression, words, text).format(**words)
    except KeyError:
        return None
    note = [_comment(lines[first], change, node)] if change.note else []
    return [*lines[:first], *note, f"{before}{written}{after}", *lines[last + 1 :]]


# For what an expression needs twice; the first that the file does not use.
_NAMES = ("t", "value", "operand", "before_change")


def _computed_once(expression: str, words: dict[str, str], text: str) -> str:
    """With a name for a computed `{x}` that the expression needs more than once: `(t := f(y)) * torch.sigmoid(t)`."""
    computed = "(" in words.get("x", "") or "[" in words.get("x", "")
    if expression.count("{x}") < 2 or not computed or "=" in expression:
        return expression
    tree = _tree(text)
    used = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)} if tree else set()
    name = next((each for each in _NAMES if each not in used), _NAMES[0])
    first, rest = expression.split("{x}", 1)
    return f"{first}({name} := {{x}}){rest.replace('{x}', name)}"


def _spots(text: str, number: int, node: Node) -> Iterator[tuple[ast.expr | ast.stmt, dict[str, str]]]:
    tree = _tree(text)
    for part in ast.walk(tree) if tree else ():
        if not isinstance(part, ast.expr | ast.stmt) or not part.lineno <= number <= (part.end_lineno or part.lineno):
            continue
        if isinstance(part, ast.Call) and _makes(part, node):
            yield part, _words_of_call(text, part)
        elif node.op == "index_put" and isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Subscript):
            yield part, _words_of_assignment(text, part, part.targets[0])


@lru_cache(maxsize=32)
def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _makes(call: ast.Call, node: Node) -> bool:
    """Whether a call in the source is the node itself, not something around it."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    module = node.module_path.rpartition(".")[2]
    if module and not module.isdigit():
        return name == module
    meant = focus(node).rpartition(".")[2]
    return bool(name) and name == meant and not node.module_path.rpartition(".")[2].isdigit()


def _words_of_call(text: str, call: ast.Call) -> dict[str, str]:
    """`{x}`: the first argument of a function, or what a tensor's method is called on."""
    words = {"call": ast.get_source_segment(text, call.func) or ""}
    is_method = isinstance(call.func, ast.Attribute) and not _is_namespace(call.func.value)
    operand = call.func.value if is_method and isinstance(call.func, ast.Attribute) else next(iter(call.args), None)
    if operand is not None:
        words["x"] = _operand(ast.get_source_segment(text, operand) or "", operand)
    return words


def _is_namespace(value: ast.expr) -> bool:
    """Whether what stands before the dot is `torch`, `F`, or a module of the network rather than a tensor."""
    root = value
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in ("torch", "F", "nn", "functional", "ops", "self", "aten")


def _operand(text: str, node: ast.expr) -> str:
    simple = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant)
    return text if simple else f"({text})"


def _words_of_assignment(text: str, assign: ast.Assign, target: ast.Subscript) -> dict[str, str]:
    def spelled(part: ast.AST) -> str:
        return ast.get_source_segment(text, part) or ""

    index = spelled(target.slice)
    return {"x": spelled(target.value), "index": index, "value": spelled(assign.value).replace(f"[{index}]", "")}
