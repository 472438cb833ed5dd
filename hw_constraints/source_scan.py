"""Where a function's text lets the value of a tensor decide: what runs, how often, how large a result is.

A name is taken for a tensor when it is an argument of `forward` without an annotation of another type, or was made
from one by anything but its shape. What cannot be told from the text is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bitwright.hw_constraints.source_code import SourceFunction
from bitwright.quant.graph import SourceLine

# Of a tensor, but no tensor.
_KNOWN_BEFORE = frozenset({"shape", "size", "dim", "ndim", "dtype", "device", "numel", "is_cuda", "requires_grad"})
_KNOWN_CALLS = frozenset({"len", "isinstance", "hasattr", "type", "range", "getattr"})
_READS = frozenset({"item", "tolist", "numpy"})
_CASTS = frozenset({"int", "float", "bool"})
_OPEN_RESULTS = frozenset({"nonzero", "masked_select", "unique", "unique_consecutive", "argwhere"})
_MASKS = frozenset({"gt", "lt", "ge", "le", "eq", "ne", "isnan", "isfinite", "isinf", "logical_and", "logical_or"})
_REDUCED = frozenset({"any", "all", "item", "max", "min", "sum", "mean", "norm", "equal", "allclose", "std", "var"})
_NO_TENSORS = frozenset({"int", "float", "bool", "str"})


class Decision(StrEnum):
    """What the value of a tensor decides."""

    BRANCH = "branch"
    LOOP = "loop"
    READ = "read"
    SHAPE = "shape"
    STATE = "state"  # it outlives the call in a plain attribute


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One place.

    Attributes:
        decision: what is decided there.
        source: the line.
        focus: the part of the line, as the user wrote it.
    """

    decision: Decision
    source: SourceLine
    focus: str


def scan(function: SourceFunction) -> tuple[Decided, ...]:
    """All such places of one function, in the order of its lines; one for each line and kind."""
    tree = function.tree()
    if tree is None:
        return ()
    found = {(each.decision, each.source.line): each for each in _Scan(function, tree).decided()}
    return tuple(sorted(found.values(), key=lambda each: each.source.line))


class _Scan:
    def __init__(self, function: SourceFunction, tree: ast.FunctionDef) -> None:
        self.function = function
        self.tree = tree
        arguments = [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs]
        self.tensors = {each.arg for each in arguments if each.arg != "self" and not _annotated_otherwise(each)}
        self.masks: set[str] = set()
        self.scalars: set[str] = set()
        # Assignments further up feed those further down; a loop's body may feed itself, hence twice.
        for _ in range(2):
            for statement in ast.walk(tree):
                self._learn(statement)

    def decided(self) -> Iterator[Decided]:
        for part in ast.walk(self.tree):
            match part:
                case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
                    if self._is_value(test):
                        yield self._at(Decision.LOOP if isinstance(part, ast.While) else Decision.BRANCH, test)
                case ast.For(iter=ast.Call(func=ast.Name(id="range"), args=arguments) as steps):
                    if any(self._is_tensor(each) for each in arguments):
                        yield self._at(Decision.LOOP, steps)
                case ast.Call():
                    yield from self._call(part)
                case ast.Subscript(value=value, slice=index) if self._is_mask(index) and self._is_tensor(value):
                    yield self._at(Decision.SHAPE, part)
                case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self")) as target], value=value):
                    if self._is_tensor(value):
                        yield self._at(Decision.STATE, target)

    def _call(self, call: ast.Call) -> Iterator[Decided]:
        name = _called(call)
        method = isinstance(call.func, ast.Attribute) and self._is_tensor(call.func.value)
        given = method or any(self._is_tensor(each) for each in call.args)
        if (name in _READS and method) or (isinstance(call.func, ast.Name) and name in _CASTS and given):
            yield self._at(Decision.READ, call)
        elif given and (name in _OPEN_RESULTS or (name == "where" and len(call.args) == 1 and not method)):
            yield self._at(Decision.SHAPE, call)

    def _learn(self, statement: ast.AST) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                targets = [target]
            case ast.For(target=target, iter=value):
                targets = [target]
            case _:
                return
        names = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        names -= {part.id for target in targets if isinstance(target, ast.Subscript) for part in ast.walk(target.slice)
                  if isinstance(part, ast.Name)}  # fmt: skip
        names.discard("self")
        if self._is_tensor(value):
            self.tensors |= names
        if self._is_mask(value):
            self.masks |= names
        if isinstance(value, ast.Call) and _called(value) in _REDUCED and self._is_tensor(value):
            self.scalars |= names

    def _is_tensor(self, part: ast.AST) -> bool:
        """Whether an expression holds values of a tensor."""
        match part:
            case ast.Name(id=name):
                return name in self.tensors
            case ast.Attribute(attr=name, value=value):
                return name not in _KNOWN_BEFORE and self._is_tensor(value)
            case ast.Call(func=function, args=arguments):
                name = _called(part)
                if name in _KNOWN_BEFORE or (isinstance(function, ast.Name) and name in _KNOWN_CALLS):
                    return False
                method = isinstance(function, ast.Attribute) and self._is_tensor(function.value)
                return method or any(self._is_tensor(each) for each in arguments)
            case ast.Compare(ops=operators):
                if any(isinstance(each, ast.Is | ast.IsNot | ast.In | ast.NotIn) for each in operators):
                    return False
                return any(self._is_tensor(each) for each in (part.left, *part.comparators))
            case ast.Subscript(value=value):
                return self._is_tensor(value)
            case ast.expr():
                return any(self._is_tensor(each) for each in ast.iter_child_nodes(part))
        return False

    def _is_value(self, test: ast.AST) -> bool:
        """Whether a condition is a tensor's value for sure; a bare argument may be a flag or None."""
        match test:
            case ast.Name(id=name):
                return name in self.masks | self.scalars
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._is_value(operand)
            case ast.BoolOp(values=values):
                return any(self._is_value(each) for each in values)
            case ast.Compare() | ast.Call():
                return self._is_tensor(test)
        return False

    def _is_mask(self, index: ast.AST) -> bool:
        match index:
            case ast.Name(id=name):
                return name in self.masks
            case ast.Compare():
                return self._is_tensor(index)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return self._is_mask(operand)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
                return self._is_mask(left) or self._is_mask(right)
            case ast.Call():
                return _called(index) in _MASKS and self._is_tensor(index)
            case ast.Tuple(elts=parts):
                return any(self._is_mask(each) for each in parts)
        return False

    def _at(self, decision: Decision, part: ast.expr) -> Decided:
        text = ast.get_source_segment(self.function.text, part) or ""
        source = self.function.line(part)
        return Decided(decision=decision, source=source, focus=text if text in source.text else "")


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _annotated_otherwise(argument: ast.arg) -> bool:
    if argument.annotation is None:
        return False
    text = ast.unparse(argument.annotation)
    return "Tensor" not in text and any(name in text for name in _NO_TENSORS)
