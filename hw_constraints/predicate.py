"""A small safe language for what an accelerator demands of an operator: `kernel_h * kernel_w <= 65536`.

A predicate is parsed once into Python's own syntax tree, checked against a whitelist, and interpreted here; nothing is
ever evaluated by Python. The same text is what reports print. Values that are not known (a dynamic dimension) make a
predicate undecided rather than true or false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bitwright.quant.errors import InputError

Value = bool | int | float | str | None

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, choices: item in choices,
    ast.NotIn: lambda item, choices: item not in choices,
}
_CONSTANTS = (bool, int, float, str)
_LONGEST = 400  # characters; a limit that does not fit is several predicates


class _Unknown(Exception):
    """An operand is not known before the network runs."""


@dataclass(frozen=True)
class Predicate:
    """A condition over named properties of one operator call.

    Attributes:
        text: as it was written, on one line.
        names: the properties it reads.
    """

    text: str
    names: frozenset[str]

    @property
    def tree(self) -> ast.expr:
        """The checked syntax tree."""
        return _tree(self.text)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Reads a predicate.

        Raises:
            ValueError: it is no expression, or uses anything beyond comparisons, `and`, `or`, `not`, `in`,
                `a if c else b`, `+ - * // %`, numbers, strings and property names.
        """
        text = " ".join(text.split())
        if len(text) > _LONGEST:
            raise ValueError(f"a predicate has at most {_LONGEST} characters")
        try:
            tree = _tree(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"not an expression: {getattr(error, 'msg', None) or error}") from None
        try:
            _check(tree)
        except RecursionError:
            raise ValueError("not an expression: nested too deeply") from None
        names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        if not names:
            raise ValueError("the predicate reads no property of the operator")
        return cls(text, names)

    def holds(self, properties: Mapping[str, Value]) -> bool | None:
        """Whether the condition is met; None when that depends on a property that is not known.

        Raises:
            InputError: the properties have other types than the predicate compares.
        """
        try:
            return bool(_evaluate(_tree(self.text), properties))
        except _Unknown:
            return None
        except (TypeError, ArithmeticError) as error:
            raise InputError(f"predicate {self.text!r} cannot be decided: {error}") from None

    def found(self, properties: Mapping[str, Value]) -> str:
        """The properties that the predicate reads, with their values: `kernel_h = 64, stride_h = 2`."""
        return ", ".join(f"{name} = {properties.get(name)}" for name in sorted(self.names))

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1024)
def _tree(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _check(node: ast.expr) -> None:
    if isinstance(node, ast.Name):
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, _CONSTANTS):
            return
    elif isinstance(node, ast.BoolOp):
        return _check_all(*node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        return _check(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _check_all(node.left, node.right)
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        return _check_all(node.left, *node.comparators)
    elif isinstance(node, ast.IfExp):
        return _check_all(node.test, node.body, node.orelse)
    elif isinstance(node, ast.Tuple):
        return _check_all(*node.elts)
    raise ValueError(f"{ast.unparse(node)!r} is not allowed in a predicate")


def _check_all(*nodes: ast.expr) -> None:
    for node in nodes:
        _check(node)


def _evaluate(node: ast.expr, properties: Mapping[str, Value]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            value = properties.get(node.id)
            if value is None:
                raise _Unknown
            return value
        case ast.Tuple():
            return tuple(_evaluate(item, properties) for item in node.elts)
        case ast.UnaryOp():
            value = _evaluate(node.operand, properties)
            return not value if isinstance(node.op, ast.Not) else -value
        case ast.BinOp():
            return _arithmetic(node, _evaluate(node.left, properties), _evaluate(node.right, properties))
        case ast.IfExp():
            return _evaluate(node.body if _evaluate(node.test, properties) else node.orelse, properties)
        case ast.BoolOp():
            return _junction(node, properties)
        case ast.Compare():
            return _comparison(node, properties)
    raise AssertionError(ast.dump(node))  # parse lets nothing else in


def _arithmetic(node: ast.BinOp, left: Any, right: Any) -> Any:
    """Numbers alone: Python would also repeat a text ten thousand million times."""
    for value in (left, right):
        if not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
    return _ARITHMETIC[type(node.op)](left, right)


def _junction(node: ast.BoolOp, properties: Mapping[str, Value]) -> bool:
    """`and` and `or` by Kleene's logic: one decisive operand outweighs the unknown ones."""
    decisive = isinstance(node.op, ast.Or)
    unknown = False
    for operand in node.values:
        try:
            if bool(_evaluate(operand, properties)) is decisive:
                return decisive
        except _Unknown:
            unknown = True
    if unknown:
        raise _Unknown
    return not decisive


def _comparison(node: ast.Compare, properties: Mapping[str, Value]) -> bool:
    left = _evaluate(node.left, properties)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _evaluate(comparator, properties)
        if not _COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True
