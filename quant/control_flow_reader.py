"""Follows what the names in a function hold, statement by statement, and notes what a static graph cannot do.

A name holds something known beforehand, a Python number read from a tensor, a tensor, a boolean mask, or a tensor whose
shape depends on values. Helper methods and functions of the user's own are followed where they are called.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import torch

from bitwright.quant.capture_failure import LIBRARY
from bitwright.quant.graph import SourceLine


class Hazard(StrEnum):
    """What a line does that a static graph cannot."""

    BRANCH = "a branch depends on the values of a tensor"
    LOOP = "the number of iterations depends on the values of a tensor"
    SCALAR = "a Python number is read from a tensor"
    MASKED = "a boolean mask selects as many elements as are true"
    SHAPE = "the shape of a result depends on the values of a tensor"
    COUNTER = "a Python number changes from call to call: a graph keeps the value that it had at capture"
    STATE = "a tensor is kept in a plain attribute from one call to the next"
    ARGUMENT = "forward writes into its own argument"


class Held(IntEnum):
    """What a name holds; of several possibilities the greatest counts."""

    PLAIN = 0
    READ = 1
    TENSOR = 2
    MASK = 3
    DYNAMIC = 4

    @property
    def is_tensor(self) -> bool:
        """Whether it is some tensor."""
        return self >= Held.TENSOR


_READS = frozenset({"item", "tolist", "numpy"})
_OF_SHAPE = frozenset({"shape", "size", "dim", "ndim", "numel", "stride"})
_KNOWN = frozenset({"dtype", "device", "is_cuda", "requires_grad", "layout", "is_floating_point", "element_size"})
_SELECTIONS = frozenset({"nonzero", "masked_select", "unique", "unique_consecutive", "argwhere"})
_MASKS = frozenset(
    "isnan isinf isfinite logical_and logical_or logical_not logical_xor bool eq ne gt ge lt le any all".split()  # noqa: SIM905
)
_CASTS = frozenset({"int", "float", "bool", "complex"})
_TOGETHER = frozenset({"zip", "enumerate"})
_SAME_VALUE = (ast.Is, ast.IsNot, ast.In, ast.NotIn)
_DEPTH = 4  # how far helpers are followed


class FunctionReader:
    """Reads functions on behalf of one module; `found` collects what they do, `names` is the scope being read."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.found: set[tuple[Hazard, SourceLine]] = set()
        self.names: dict[str, Held] = {}
        self._arguments: frozenset[str] = frozenset()
        self._globals: Mapping[str, Any] = {}
        self._file, self._first, self._lines, self._depth = "", 1, [""], 0
        self._returned = Held.PLAIN

    def read(self, function: Callable[..., Any], held: Mapping[str, Held]) -> Held:
        """Reads a function whose parameters hold what is given; says what it returns."""
        source = _source(function)
        if source is None or self._depth >= _DEPTH:
            return max(held.values(), default=Held.PLAIN)
        outer = vars(self).copy()
        definition, self._file, self._first, self._lines = source
        self.names, self._returned, self._depth = dict(held), Held.PLAIN, self._depth + 1
        self._arguments = frozenset(held) if self._depth == 1 else frozenset()  # helpers write on behalf of others
        self._globals = inspect.unwrap(function).__globals__
        self._block(definition.body)
        returned = self._returned
        vars(self).update(outer)
        return returned

    # --- statements ---

    def _block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.AugAssign(target=target, value=value):
                self._store(target, max(self._value(value), self._value(target)), changed=True)
            case ast.For(target=target, iter=items, body=body, orelse=orelse):
                self._loop(target, items)
                self._block([*body, *orelse])
            case ast.While(test=test, body=body, orelse=orelse):
                self._decide(test, Hazard.LOOP)
                self._block([*body, *orelse])
            case ast.If(test=test, body=body, orelse=orelse):
                self._decide(test, Hazard.BRANCH)
                self._both(body, orelse)
            case ast.Assert(test=test):
                self._decide(test, Hazard.BRANCH)
            case ast.Return(value=ast.expr() as value):
                self._returned = max(self._returned, self._value(value))
            case ast.Expr(value=value):
                self._value(value)
            case ast.With(body=body):
                self._block(body)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=finalbody):
                self._block([*body, *(each for handler in handlers for each in handler.body), *orelse, *finalbody])

    def _loop(self, target: ast.expr, items: ast.expr) -> None:
        held = self._value(items)
        if held is Held.READ:
            self._note(Hazard.LOOP, items)
        together = isinstance(items, ast.Call) and isinstance(items.func, ast.Name) and items.func.id in _TOGETHER
        if together and isinstance(items, ast.Call) and isinstance(target, ast.Tuple):
            parts = items.args if len(items.args) == len(target.elts) else [ast.Constant(0), *items.args]
            for each, part in zip(target.elts, parts, strict=False):
                self._store(each, self._value(part))
        else:
            self._store(target, held)

    def _both(self, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        before = dict(self.names)
        self._block(body)
        after, self.names = self.names, before
        self._block(orelse)
        for name, held in after.items():
            self.names[name] = max(held, self.names.get(name, Held.PLAIN))

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for each, held in [(each, self._value(part)) for each, part in pairs]:
            self._store(each, held)

    def _store(self, target: ast.expr, held: Held, *, changed: bool = False) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = held
                if not changed:
                    self._arguments -= {name}  # from here on it is a local name
                elif name in self._arguments and held.is_tensor:
                    self._note(Hazard.ARGUMENT, target)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._store(part, held)
            case ast.Starred(value=inner):
                self._store(inner, held)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                if held.is_tensor and name not in self.module._buffers and name not in self.module._parameters:
                    self._note(Hazard.STATE, target)
                elif changed and isinstance(getattr(self.module, name, None), int | float):
                    self._note(Hazard.COUNTER, target)
            case ast.Subscript(value=base, slice=index):
                if self._value(index) is Held.MASK and self._value(base).is_tensor:
                    self._note(Hazard.MASKED, target)
                if isinstance(base, ast.Name) and base.id in self._arguments and self._value(base).is_tensor:
                    self._note(Hazard.ARGUMENT, target)
                if _is_own_attribute(base) and held.is_tensor and not self._value(base).is_tensor:
                    self._note(Hazard.STATE, target)  # a cache in a dictionary or a list

    def _decide(self, test: ast.expr, hazard: Hazard) -> None:
        if self._value(test) is not Held.PLAIN:
            self._note(hazard, test)

    # --- expressions ---

    def _value(self, node: ast.expr) -> Held:
        match node:
            case ast.Name(id=name):
                return self.names.get(name, Held.PLAIN)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.Subscript(value=base, slice=index):
                return self._element(node, self._value(base), self._value(index))
            case ast.Compare(left=left, ops=ops, comparators=others):
                held = max(map(self._value, (left, *others)))
                same = any(isinstance(op, _SAME_VALUE) for op in ops)
                return Held.PLAIN if same else Held.MASK if held.is_tensor else held
            case ast.BoolOp(values=parts):
                held = max(map(self._value, parts))
                if held.is_tensor:
                    self._note(Hazard.BRANCH, node)
                return Held.READ if held.is_tensor else held
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return min(self._value(operand), Held.READ)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._decide(test, Hazard.BRANCH)
                return max(self._value(body), self._value(orelse))
            case ast.BinOp(left=left, op=op, right=right):
                held = max(self._value(left), self._value(right))
                logical = isinstance(op, ast.BitAnd | ast.BitOr | ast.BitXor)
                return held if logical or held is not Held.MASK else Held.TENSOR
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                return self._comprehension(node)
            case ast.Lambda():
                return Held.PLAIN
        return max(
            (self._value(each) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)), default=Held.PLAIN
        )

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Held:
        for each in node.generators:
            self._loop(each.target, each.iter)
            for test in each.ifs:
                self._decide(test, Hazard.BRANCH)
        return self._value(node.elt)

    def _attribute(self, node: ast.Attribute) -> Held:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            value = getattr(self.module, node.attr, None)
            mask = isinstance(value, torch.Tensor) and value.dtype is torch.bool
            return Held.MASK if mask else Held.TENSOR if isinstance(value, torch.Tensor) else Held.PLAIN
        return self._property(self._value(node.value), node.attr)

    def _property(self, held: Held, name: str) -> Held:
        if name in _OF_SHAPE:
            return Held.READ if held is Held.DYNAMIC else min(held, Held.PLAIN)
        return Held.PLAIN if name in _KNOWN else held

    def _element(self, node: ast.Subscript, base: Held, index: Held) -> Held:
        if not base.is_tensor:
            return max(base, index)
        if index is Held.MASK:
            self._note(Hazard.MASKED, node)
            return Held.DYNAMIC
        if index is Held.READ and any(isinstance(part, ast.Slice) for part in ast.walk(node.slice)):
            self._note(Hazard.SHAPE, node)
            return Held.DYNAMIC
        return Held.DYNAMIC if index is Held.DYNAMIC else base

    def _call(self, node: ast.Call) -> Held:
        given = [self._value(each) for each in node.args] + [self._value(each.value) for each in node.keywords]
        held = max(given, default=Held.PLAIN)
        function = node.func
        if isinstance(function, ast.Name):
            return self._named_call(node, function.id, held)
        if not isinstance(function, ast.Attribute):
            return held
        own = isinstance(function.value, ast.Name) and function.value.id == "self"
        if own:
            return self._own_call(node, function.attr, held)
        base = self._value(function.value)
        if function.attr == "append" and held.is_tensor and _is_own_attribute(function.value):
            self._note(Hazard.STATE, node)
        return self._method(node, function, base, held)

    def _method(self, node: ast.Call, function: ast.Attribute, base: Held, held: Held) -> Held:
        """`tensor.method(…)` and `torch.function(tensor, …)`."""
        name, everything = function.attr, max(base, held)
        if name in _READS and base.is_tensor:
            self._note(Hazard.SCALAR, node)
            return Held.READ
        if name in _OF_SHAPE or name in _KNOWN:
            return self._property(everything, name)
        if everything.is_tensor and (name in _SELECTIONS or (name == "where" and len(node.args) == 1)):
            self._note(Hazard.SHAPE, node)
            return Held.DYNAMIC
        written = function.value
        if name.endswith("_") and isinstance(written, ast.Name) and written.id in self._arguments and base.is_tensor:
            self._note(Hazard.ARGUMENT, node)
        if everything is Held.DYNAMIC or not everything.is_tensor:
            return everything
        keeps_masks = name in {"view", "reshape", "unsqueeze", "squeeze", "flatten", "permute", "expand", "clone"}
        return Held.MASK if name in _MASKS or (keeps_masks and base is Held.MASK) else Held.TENSOR

    def _named_call(self, node: ast.Call, name: str, held: Held) -> Held:
        if name in _CASTS and held.is_tensor:
            self._note(Hazard.SCALAR, node)
        if name in _CASTS:
            return min(held, Held.READ)
        if name == "len":
            return Held.READ if held is Held.DYNAMIC else Held.PLAIN
        if name in {"isinstance", "hasattr", "type", "callable"}:
            return Held.PLAIN
        function = self._globals.get(name)
        if not inspect.isfunction(function):
            return held
        return self.read(function, self._bind(function, node))

    def _own_call(self, node: ast.Call, name: str, held: Held) -> Held:
        value = getattr(type(self.module), name, None)
        if inspect.isfunction(value) and not isinstance(getattr(self.module, name, None), torch.nn.Module):
            static = isinstance(inspect.getattr_static(self.module, name, None), staticmethod)
            return self.read(value, self._bind(value, node, skip=0 if static else 1))
        return Held.TENSOR if held is Held.MASK else held

    def _bind(self, function: Callable[..., Any], call: ast.Call, skip: int = 0) -> dict[str, Held]:
        names = list(inspect.signature(function).parameters)[skip:]
        held = dict.fromkeys(names, Held.PLAIN)
        held |= {name: self._value(each) for name, each in zip(names, call.args, strict=False)}
        return held | {each.arg: self._value(each.value) for each in call.keywords if each.arg in held}

    def _note(self, hazard: Hazard, node: ast.expr) -> None:
        line = self._lines[node.lineno - 1].strip()
        self.found.add((hazard, SourceLine(self._file, self._first + node.lineno - 1, line)))


def first_use(module: torch.nn.Module, attributes: Collection[str]) -> SourceLine | None:
    """The first line of a module's `forward` that names one of its attributes; None without a source to read."""
    source = _source(type(module).forward)
    if source is None:
        return None
    definition, file, first, lines = source
    uses = [node for node in ast.walk(definition) if isinstance(node, ast.Attribute) and _is_own_attribute(node)]
    numbers = [use.lineno for use in uses if use.attr in attributes]
    if not numbers:
        return None
    return SourceLine(file, first + min(numbers) - 1, lines[min(numbers) - 1].strip())


def _source(function: Callable[..., Any]) -> tuple[ast.FunctionDef, str, int, list[str]] | None:
    """The definition, the file, its first line's number and its lines; None for code that is not the user's."""
    function = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or ""
        definition = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    if file.startswith(LIBRARY) or not isinstance(definition, ast.FunctionDef):
        return None
    return definition, str(Path(file)), first, lines


def _is_own_attribute(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
