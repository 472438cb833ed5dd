"""Operators that a module's forward calls as functions: found again by where they are called, and quantized there.

While such a module runs, a `TorchFunctionMode` sees each call into torch. A call is known by its module, the
how-many-th call of that module it happens in, the operator's name, and how many of that name came before.
"""

from __future__ import annotations

import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._compile import _disable_dynamo
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from bitwright.qat.calls import CallCounter
from bitwright.qat.checkpointed import Surroundings, refuse_checkpoint_within
from bitwright.qat.quantizer import DynamicQuantizer, Quantizer
from bitwright.qat.rectifiers import CEILINGS, can_rest
from bitwright.quant.graph import TensorRef

Key = tuple[str, int]
Rewrite = Callable[[torch.Tensor], torch.Tensor]
# Another computation of a call, from its arguments and keyword arguments.
InPlaceOf = Callable[[tuple[Any, ...], dict[str, Any]], Any]

_OPERATORS = {"iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "truediv": "div"}
_OPERATORS |= {"itruediv": "div", "rmatmul": "matmul", "imatmul": "matmul", "ipow": "pow", "multiply": "mul"}


@dataclass(eq=False)
class Tap:
    """Lets somebody look at every quantized activation while the network runs."""

    look: Callable[[TensorRef, torch.Tensor], None] | None = None


@dataclass(eq=False)
class Site:
    """Where one activation of the plan arises."""

    ref: TensorRef
    quantizer: Quantizer | DynamicQuantizer
    tap: Tap

    def __call__(self, x: torch.Tensor, *, rested: str = "") -> torch.Tensor:
        """Fake-quantizes it; `rested`: the name of the rectifier that has not run."""
        result: torch.Tensor = self.quantizer(x, ceiling=CEILINGS[rested]) if rested else self.quantizer(x)
        if self.tap.look is not None:
            self.tap.look(self.ref, result)
        return result


@dataclass(eq=False)
class CallSite:
    """What is done around one call: to single operands (by their place among its tensors) and to its result.

    Attributes:
        operands: what is read in place of them.
        results: where each result is rounded, by its place among them.
        instead: what runs in place of the function, roundings and all.
    """

    operands: dict[int, Rewrite] = field(default_factory=dict)
    results: dict[int, Site] = field(default_factory=dict)
    instead: InPlaceOf | None = None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the function with the operands and the result replaced."""
        if self.instead is not None:
            return self.instead(args, kwargs)
        if self.operands:
            leaves, spec = pytree.tree_flatten((args, kwargs))
            tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
            for place, rewrite in self.operands.items():
                leaves[tensors[place]] = rewrite(leaves[tensors[place]])
            args, kwargs = pytree.tree_unflatten(leaves, spec)
        name, site = operator_name(function), self.results.get(0)
        if site is not None and name in CEILINGS and args and can_rest(name, site.quantizer, args[0]):
            return site(args[0], rested=name)
        result = function(*args, **kwargs)
        if not isinstance(result, tuple | list):
            return result if site is None else site(result)
        parts: Any = type(result)
        return parts([self.results[i](part) if i in self.results else part for i, part in enumerate(result)])


@dataclass(eq=False)
class Event:
    """A call that was seen: which, its tensor operands, what it returned, and whether that was used by its name."""

    call: int
    key: Key
    operands: tuple[torch.Tensor, ...]
    result: Any
    used: bool = True


def kept(result: Any) -> Any:
    """A copy of a tensor, since what runs next may write into it."""
    return result.clone() if isinstance(result, torch.Tensor) else result


class Boundary:
    """The hooks that tell when a module's forward begins and ends.

    Attributes:
        operators: names of the functions to watch inside; none in modules that only run inside watched ones.
        calls: the sites of each call of the module; more calls than at capture start from the first again.
        counter: of its calls in this forward of the network.
        events: filled with what is called while this is a list.
    """

    def __init__(self, mode: CallSites, operators: Iterable[str] = ()) -> None:
        self.mode = mode
        self.operators = frozenset(operators)
        self.calls: list[dict[Key, CallSite]] = []
        self.counter = CallCounter()
        self.events: list[Event] | None = None

    @_disable_dynamo
    def enter(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        """A forward pre-hook."""
        if not self.operators:
            return self.mode.begin(None)
        self.mode.begin(_Frame(self, module, self.counter.next(len(self.calls), module, (args, kwargs))))

    @_disable_dynamo
    def leave(self, *_: Any) -> None:
        """A forward hook; to be called also when forward raises."""
        self.mode.end()


class _Frame:
    def __init__(self, boundary: Boundary, module: torch.nn.Module, call: int) -> None:
        self.boundary, self.module, self.call = boundary, module, call
        self.entered = Surroundings.now()
        self.sites = boundary.calls[call] if boundary.calls else {}
        self.counts: Counter[str] = Counter()

    def run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = (name, self.counts[name])
        self.counts[name] += 1
        site = self.sites.get(key)
        if site is not None:
            refuse_checkpoint_within(self.module, self.entered, name)
        result = site.call(function, args, kwargs) if site is not None else function(*args, **kwargs)
        if self.boundary.events is not None:
            tensors = tuple(leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
            event = Event(self.call, key, tensors, kept(result))
            self.boundary.events.append(event)
            if args and result is args[0]:
                # Written in place: the caller may go on with the operand, which a site could not replace.
                result = result.clone()
                self.boundary.mode.returned = weakref.ref(result), event
        return result


class CallSites(TorchFunctionMode):
    """Active between the first watched module that is entered and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[_Frame | None] = []
        self.unfolding: set[Any] = set()
        self.returned: tuple[weakref.ref[torch.Tensor], Event] | None = None

    def begin(self, frame: _Frame | None) -> None:
        """A module begins."""
        self._settle()
        if not self.frames:
            self.__enter__()  # type: ignore[no-untyped-call]
        self.frames.append(frame)

    def end(self) -> None:
        """The innermost module ends."""
        self._settle()
        if not self.frames:
            return  # the forward was refused before its first module began
        self.frames.pop()
        if not self.frames:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Forgets a forward that was interrupted (Ctrl-C runs no hooks)."""
        self.frames.clear()
        if _get_current_function_mode() is self:  # type: ignore[no-untyped-call]
            self.__exit__(None, None, None)

    def _settle(self) -> None:
        """By the next call, a result that nobody holds has been dropped."""
        if self.returned is not None:
            reference, event = self.returned
            event.used, self.returned = reference() is not None, None

    def __torch_function__(
        self, function: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs watched operators through their site, looks inside functions that call several."""
        self._settle()
        kwargs = kwargs or {}
        frame = self.frames[-1] if self.frames else None
        if frame is None:
            return function(*args, **kwargs)
        name = operator_name(function)
        if name in frame.boundary.operators:
            return frame.run(name, function, args, kwargs)
        if not isinstance(function, types.FunctionType) or function in self.unfolding:
            return function(*args, **kwargs)
        self.unfolding.add(function)
        try:
            with self:
                return undispatched(function)(*args, **kwargs)
        finally:
            self.unfolding.discard(function)


def operator_name(function: Any) -> str:
    """The name of a torch function as ATen calls it: `Tensor.__iadd__`, `add_` and `torch.add` are `add`."""
    name: str = getattr(function, "__name__", "")
    plain = name.strip("_")
    return _OPERATORS.get(plain, plain) if name.startswith("__") else plain


@cache
def undispatched(function: types.FunctionType) -> Callable[..., Any]:
    """The same Python function without its own check for modes, so that what it calls is seen instead of itself."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**function.__globals__, **dict.fromkeys(checks, lambda *_: False)}
    twin = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin
