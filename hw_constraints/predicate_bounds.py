"""Whether predicates can hold at all: a constraint that no call meets is a mistake in its target's file.

Every property ranges over an interval of whole numbers. A predicate is evaluated over a box of intervals to true, false
or either; boxes that are neither are cut at the constants that the predicates name. The answer 'contradictory' is only
given when every box is false, and interval arithmetic never excludes a value that could occur, so it is never a false
alarm; what cannot be decided within the budget counts as fine.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from bitwright.hw_constraints.predicate import Predicate
from bitwright.quant.errors import InputError

_BOXES = 400  # looked at before giving up
_POINTS = 400  # tried as witnesses before that
# A window and a group have at least one element; sizes, padding, factors and an adaptive pool's stride may be zero.
_FROM_ONE = ("kernel_", "dilation_", "groups")
_BOOLEAN = ("depthwise", "align_corners")
_OTHER_TEXT = "\0"  # stands for every text that the predicates do not name


@dataclass(frozen=True)
class _Range:
    """All numbers from `low` to `high`."""

    low: float
    high: float

    @property
    def is_point(self) -> bool:
        return self.low == self.high


_Domain = _Range | str
_Box = Mapping[str, _Domain]
_ANYTHING = _Range(-math.inf, math.inf)


def contradictory(predicates: Sequence[Predicate]) -> bool:
    """Whether no call whatsoever meets all of the predicates."""
    trees = [predicate.tree for predicate in predicates]
    values = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    if any(isinstance(value, float) for value in values):
        return False  # every bound below is a whole number
    constants = sorted({0, *(int(value) for value in values if isinstance(value, int))})
    texts = sorted(value for value in values if isinstance(value, str))
    names = sorted(frozenset().union(*(predicate.names for predicate in predicates)))
    if any(all(_meets(predicate, point) for predicate in predicates) for point in _points(names, constants, texts)):
        return False
    try:
        return _every_box_is_false(trees, list(_boxes(names, texts)), constants)
    except (OverflowError, RecursionError):  # numbers beyond a float's reach: not decided
        return False


def _every_box_is_false(trees: Sequence[ast.expr], boxes: list[_Box], constants: Sequence[int]) -> bool:
    for _ in range(_BOXES):
        if not boxes:
            return True
        box = boxes.pop()
        verdicts = [_truth(_over(tree, box)) for tree in trees]
        if False in verdicts:
            continue
        parts = _cut(box, constants)
        if None not in verdicts or not parts:
            return False  # it holds here, or nobody can tell
        boxes += parts
    return False


def _cut(box: _Box, constants: Sequence[int]) -> list[_Box]:
    """The box in two or three, at a constant that lies inside one of its ranges."""
    for name, domain in box.items():
        if isinstance(domain, str):
            continue
        for value in constants:
            pieces = (_Range(domain.low, value - 1), _Range(value, value), _Range(value + 1, domain.high))
            inside = [each for each in pieces if domain.low <= each.low <= each.high <= domain.high]
            if len(inside) > 1:
                return [{**box, name: each} for each in inside]
    return []


def _boxes(names: Sequence[str], texts: Sequence[str]) -> Iterator[_Box]:
    """Everything that the properties can be; texts one by one."""
    choices: list[list[_Domain]] = [
        [*texts, _OTHER_TEXT] if name == "dtype" else [_Range(_lowest(name), _highest(name))] for name in names
    ]
    for values in product(*choices):
        yield dict(zip(names, values, strict=True))


def _points(names: Sequence[str], constants: Sequence[int], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Likely witnesses: the same small number everywhere, then mixtures of the constants and their neighbours."""
    near = sorted({value + step for value in constants for step in (0, 1, -1)} | {0, 1, 2, 64})
    spellings = [*texts, _OTHER_TEXT] if "dtype" in names else [_OTHER_TEXT]
    for value, text in product(near, spellings):
        yield {name: text if name == "dtype" else min(max(value, _lowest(name)), _highest(name)) for name in names}
    values: list[list[Any]] = [
        spellings if name == "dtype" else [each for each in near if _lowest(name) <= each <= _highest(name)]
        for name in names
    ]
    for point in islice(product(*values), _POINTS):
        yield dict(zip(names, point, strict=True))


def _lowest(name: str) -> int:
    return 1 if name.startswith(_FROM_ONE) else 0


def _highest(name: str) -> float:
    return 1 if name in _BOOLEAN else math.inf


def _meets(predicate: Predicate, point: Mapping[str, Any]) -> bool:
    try:
        return predicate.holds(point) is True
    except InputError:
        return False


def _truth(domain: Any) -> bool | None:
    """Of a value's Python truth: None when the range holds both."""
    if isinstance(domain, str):
        return bool(domain)
    if isinstance(domain, tuple):
        return bool(domain)
    if domain.is_point:
        return bool(domain.low)
    return None if domain.low <= 0 <= domain.high else True


def _of_truth(value: bool | None) -> _Range:
    return _Range(0, 1) if value is None else _Range(int(value), int(value))


def _over(node: ast.expr, box: _Box) -> Any:
    """The range of an expression over a box: a `_Range`, a text, or a tuple of them."""
    match node:
        case ast.Constant():
            return node.value if isinstance(node.value, str) else _Range(node.value, node.value)  # type: ignore[arg-type]
        case ast.Name():
            return box[node.id]
        case ast.Tuple():
            return tuple(_over(item, box) for item in node.elts)
        case ast.UnaryOp():
            value = _over(node.operand, box)
            if isinstance(node.op, ast.Not):
                truth = _truth(value)
                return _of_truth(None if truth is None else not truth)
            return _Range(-value.high, -value.low) if isinstance(value, _Range) else _ANYTHING
        case ast.BinOp():
            return _combined(type(node.op), _over(node.left, box), _over(node.right, box))
        case ast.IfExp():
            return _either(_truth(_over(node.test, box)), node, box)
        case ast.BoolOp():
            return _junction(node, box)
        case ast.Compare():
            return _chain(node, box)
    raise AssertionError(ast.dump(node))  # Predicate.parse lets nothing else in


def _either(test: bool | None, node: ast.IfExp, box: _Box) -> Any:
    if test is not None:
        return _over(node.body if test else node.orelse, box)
    yes, no = _over(node.body, box), _over(node.orelse, box)
    if isinstance(yes, _Range) and isinstance(no, _Range):
        return _Range(min(yes.low, no.low), max(yes.high, no.high))
    return _ANYTHING


def _junction(node: ast.BoolOp, box: _Box) -> Any:
    """`and` and `or` as truth values, which is all that a predicate asks of them."""
    decisive = isinstance(node.op, ast.Or)
    truths = [_truth(_over(value, box)) for value in node.values]
    return _of_truth(decisive if decisive in truths else None if None in truths else not decisive)


def _chain(node: ast.Compare, box: _Box) -> _Range:
    left, verdict = _over(node.left, box), True
    undecided = False
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _over(comparator, box)
        held = _compared(op, left, right)
        verdict = verdict and held is not False
        undecided = undecided or held is None
        left = right
    return _of_truth(False if not verdict else None if undecided else True)


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, tuple):
            return None
        equal = [_compared(ast.Eq(), left, item) for item in right]
        found = True if True in equal else None if None in equal else False
        return found if isinstance(op, ast.In) or found is None else not found
    if isinstance(op, ast.NotEq):
        equal_ = _compared(ast.Eq(), left, right)
        return None if equal_ is None else not equal_
    if isinstance(left, _Range) and isinstance(right, _Range):
        return _ORDER[type(op)](left, right)
    if isinstance(op, ast.Eq) and isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(op, ast.Eq) and type(left) is not type(right) and str in (type(left), type(right)):
        return False
    return None


def _less(left: _Range, right: _Range) -> bool | None:
    return True if left.high < right.low else False if left.low >= right.high else None


def _less_or_equal(left: _Range, right: _Range) -> bool | None:
    return True if left.high <= right.low else False if left.low > right.high else None


def _equal(left: _Range, right: _Range) -> bool | None:
    if left.high < right.low or right.high < left.low:
        return False
    return True if left.is_point and right.is_point else None


_ORDER: dict[type[ast.cmpop], Callable[[_Range, _Range], bool | None]] = {
    ast.Lt: _less,
    ast.LtE: _less_or_equal,
    ast.Gt: lambda left, right: _less(right, left),
    ast.GtE: lambda left, right: _less_or_equal(right, left),
    ast.Eq: _equal,
}


def _combined(op: type[ast.operator], left: Any, right: Any) -> _Range:
    if not isinstance(left, _Range) or not isinstance(right, _Range):
        return _ANYTHING
    if op is ast.Add:
        return _Range(left.low + right.low, left.high + right.high)
    if op is ast.Sub:
        return _Range(left.low - right.high, left.high - right.low)
    if op is ast.Mult:
        return _corners(operator.mul, left, right)
    if right.low <= 0:
        return _ANYTHING  # divisors that may be zero or less
    if op is ast.FloorDiv:
        return _corners(_floor_divided, left, right)
    if left.is_point and right.is_point:
        return _Range(left.low % right.low, left.low % right.low)
    if left.low >= 0 and left.high < right.low:
        return left  # smaller than every divisor
    return _Range(0, right.high - 1)  # whole numbers


def _corners(function: Callable[[float, float], float], left: _Range, right: _Range) -> _Range:
    """The range of a function that is monotonic in each operand: its extremes lie in the corners."""
    values = [0 if 0 in (a, b) else function(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
    return _Range(min(values), max(values))


def _floor_divided(left: float, right: float) -> float:
    if math.isinf(right):
        return 0 if left > 0 else -1
    return left if math.isinf(left) else left // right
