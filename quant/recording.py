"""What the modules of a network are called with while the user's own model runs, and what that costs."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bitwright.quant.capture_failure import LIBRARY
from bitwright.quant.graph import SourceLine
from bitwright.quant.preserve import preserved


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a module, with copies of its arguments.

    Attributes:
        path: the module's.
        args: as they were when the call began.
        kwargs: likewise.
        source: the line in the user's code that makes the call.
    """

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: SourceLine | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What calls took in one run.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products and attention.
        seconds: wall time.
    """

    macs: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(macs=self.macs + other.macs, seconds=self.seconds + other.seconds)


def signature(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What has to be equal for two calls to be the same graph."""
    leaves, spec = pytree.tree_flatten((args, dict(sorted(kwargs.items()))))
    return f"{spec} {[_spell(leaf) for leaf in leaves]}"


def _spell(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)


def record_calls(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], paths: set[str]
) -> list[Call]:
    """Runs the model once and keeps the first call of each of these modules for each signature.

    A module that is only reached through functions, never called, is not among the results.
    """
    calls: dict[tuple[str, str], Call] = {}

    def keep(path: str, given: tuple[Any, ...], named: dict[str, Any]) -> Callable[[], None]:
        spelled = signature(given, named)
        if (path, spelled) not in calls:
            copied, named = pytree.tree_map_only(torch.Tensor, _copy, (given, named))
            calls[path, spelled] = Call(path=path, args=copied, kwargs=named, source=_calling_line())
        return lambda: None

    with _hooked(model, paths, keep):
        run(model, args, kwargs)
    return list(calls.values())


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    # Some layers activate in place: what a module was given is not what its tensor holds later.
    return tensor.detach().clone()


def _frames() -> Iterator[traceback.FrameSummary]:
    return reversed(traceback.extract_stack())


def _calling_line() -> SourceLine | None:
    inner = itertools.takewhile(lambda frame: frame.name != run.__name__ or frame.filename != __file__, _frames())
    for frame in inner:
        if frame.lineno is not None and not frame.filename.startswith(LIBRARY):
            return SourceLine(frame.filename, frame.lineno, (frame.line or "").strip())
    return None


def measure_calls(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], paths: set[str]
) -> tuple[Cost, dict[tuple[str, str], tuple[int, Cost]]]:
    """The cost of a whole run, and of the calls of these modules: number and sum by (path, signature).

    Multiply-accumulates are counted and time is taken in runs of their own, since counting takes time. A call that is
    made within another of these modules belongs to that one.
    """
    with _OperationCounter() as counted:
        macs = _sums(model, args, kwargs, paths, lambda: counted.operations // 2)
    seconds = _sums(model, args, kwargs, paths, time.perf_counter)
    empty = (0, 0)
    table = {
        key: (number, Cost(macs=int(macs.get(key, empty)[1]), seconds=float(total)))
        for key, (number, total) in seconds.items()
    }
    whole = table.pop(_WHOLE)[1]
    return whole, table


_WHOLE = ("", "")


def _sums(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    paths: set[str],
    clock: Callable[[], float],
) -> dict[tuple[str, str], tuple[int, float]]:
    sums: dict[tuple[str, str], tuple[int, float]] = {}
    depth = 0

    def start(path: str, given: tuple[Any, ...], named: dict[str, Any]) -> Callable[[], None]:
        nonlocal depth
        depth += 1
        key, first = (path, signature(given, named)), clock()

        def stop() -> None:
            nonlocal depth
            depth -= 1
            if depth == 0:
                number, total = sums.get(key, (0, 0.0))
                sums[key] = (number + 1, total + clock() - first)

        return stop

    def whole(forward: Callable[[], Any]) -> Any:
        # The forward alone: keeping the model as it was takes time, too, for which no region is to blame.
        begin = clock()
        result = forward()
        sums[_WHOLE] = (1, clock() - begin)
        return result

    with _hooked(model, paths, start):
        run(model, args, kwargs, around=whole)
    return sums


@contextmanager
def _hooked(
    model: torch.nn.Module, paths: set[str], enter: Callable[[str, tuple[Any, ...], dict[str, Any]], Callable[[], None]]
) -> Iterator[None]:
    """Calls `enter` where a module is called, and what it returns where the call ends, also when it raises."""
    running: list[Callable[[], None]] = []
    handles = []
    for path, module in model.named_modules():
        if path not in paths:
            continue

        def before(_: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], path: str = path) -> None:
            running.append(enter(path, given, named))

        def after(*_: Any) -> None:
            running.pop()()

        handles += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_it_is(forward: Callable[[], Any]) -> Any:
    return forward()


@torch.no_grad()
def run(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    around: Callable[[Callable[[], Any]], Any] = _as_it_is,
) -> Any:
    """One forward in eval mode that leaves model, arguments and random state as they were.

    Args:
        model: the user's own.
        args: of its forward, which are copied.
        kwargs: likewise.
        around: calls the forward, and gives back what that gives back.
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, _copy, (args, dict(kwargs)))
    # The fused kernels of torch's transformers hide their products, and their submodules are never called.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with preserved(model):
            model.eval()
            return around(lambda: model(*args, **kwargs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _OperationCounter(TorchDispatchMode):
    """Counts two operations a multiply-accumulate, by torch's own formulas and those below.

    `torch.utils.flop_counter.FlopCounterMode` would do, but for the module tracker in it, which fails on views of
    parameters where no gradients are recorded.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        own = _FORMULAS.get(func._overloadpacket)
        if own is not None:
            self.operations += own(*args)
        elif func._overloadpacket in flop_registry:
            self.operations += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def _recurrent_operations(x: torch.Tensor, weight_ih: torch.Tensor, weight_hh: torch.Tensor, *_: Any) -> int:
    """Each weight of both matrices at each position."""
    return 2 * x.numel() // x.shape[-1] * (weight_ih.numel() + weight_hh.numel())


def _attention_operations(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> int:
    """Scores, then the weighted sum of values: [..., q, d] x [..., k, d] and [..., q, k] x [..., k, e]."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])


# What only processors have; torch's registry knows the kernels of GPUs.
_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
}
