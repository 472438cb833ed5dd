"""Finds where the tensors of a plan arise when the user's own module runs eagerly.

The captured graph names each tensor by module, call and operator; eagerly there are module calls and function calls.
They are joined in order, and by value: on the example inputs the eager tensor must equal the captured one, so that a
wrong join is found here and not after training.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitwright.qat.batches import call_with
from bitwright.qat.call_sites import Boundary, CallSites, Event, Key, kept
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Node, TensorRef

# Eager names of operators that the capture spells otherwise.
_SPELLINGS = {
    "bmm": ("matmul",),
    "mm": ("matmul",),
    "rsub": ("rsub", "sub"),
    "select": ("getitem",),
    "slice": ("getitem",),
    "index": ("getitem",),
    "conv_transpose2d": ("conv_transpose2d_input",),
    "reshape": ("view", "flatten", "unflatten", "reshape_as", "view_as"),
    "view": ("reshape", "flatten", "unflatten", "reshape_as", "view_as"),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A node whose result or constant operands are to be found.

    Attributes:
        node: of the captured graph.
        constants: operands of it.
        is_call: whether the call itself is wanted, be it all that its module does.
    """

    node: Node
    constants: tuple[TensorRef, ...] = ()
    is_call: bool = False


@dataclass(frozen=True)
class ModuleResult:
    """The node is all that a module does: its result is what the module returns in its `call`-th of `calls` calls."""

    module: nn.Module
    call: int
    calls: int


@dataclass(frozen=True)
class FunctionCall:
    """The node is one function call in a module's `call`-th of `calls` calls.

    `places` are those of the constants asked for, counted among the function's tensor operands.
    """

    module: nn.Module
    call: int
    calls: int
    key: Key
    places: Mapping[TensorRef, int]


Location = ModuleResult | FunctionCall


def module_of(model: nn.Module, node: Node) -> nn.Module:
    """The module whose forward calls a node.

    Raises:
        InputError: the path is not in the module tree.
    """
    try:
        return model.get_submodule(node.module_path)
    except AttributeError as error:
        raise InputError(f"module {node.module_path!r} of {describe(node)} is not in the model: {error}") from error


def describe(node: Node) -> str:
    """A node in words, with the user's own line."""
    source = f" ({node.source})" if node.source else ""
    where = repr(node.module_path) if node.module_path else "the model"
    return f"{node.op!r} in {where}{source}"


def locate(
    model: nn.Module, captured: CapturedModel, requests: Sequence[Request], args: tuple[Any, ...]
) -> dict[str, Location]:
    """Finds each request, by the node's name.

    Args:
        model: the user's module; runs once, in eval mode, and is left as it was.
        captured: the same in eval mode, batch norms not yet folded.
        requests: what to look for, in the graph's order.
        args: the example arguments that it was captured with.

    Raises:
        InputError: a tensor that does not arise when the module runs eagerly, with its source line.
    """
    wanted = {request.node.outputs[0] for request in requests}
    values: dict[TensorRef, torch.Tensor] = {}

    def keep(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in wanted:
            values[ref] = tensor
        return tensor

    captured.run(*args, transform=keep)
    by_module: dict[nn.Module, list[Request]] = defaultdict(list)
    for request in requests:
        by_module[module_of(model, request.node)].append(request)
    nodes = _node_counts(model, captured)
    whole = {m for m, asked in by_module.items() if _is_all_it_does(m, asked, nodes)}
    results, watched = _observe(model, {m: r for m, r in by_module.items() if m not in whole}, whole, args)
    found: dict[str, Location] = {}
    for module, asked in by_module.items():
        if module in whole:
            found.update(_match_results(module, asked, results[module], values))
        else:
            found.update(_match_events(module, asked, watched[module], values, captured))
    return found


def _node_counts(model: nn.Module, captured: CapturedModel) -> dict[nn.Module, set[int]]:
    """How many operators the calls of each module have."""
    counts: dict[tuple[str, int], int] = defaultdict(int)
    for node in captured.graph.nodes:
        if node.outputs:
            counts[node.module_path, node.outputs[0].call_index] += 1
    table: dict[nn.Module, set[int]] = defaultdict(set)
    for (path, _), count in counts.items():
        with contextlib.suppress(AttributeError):
            table[model.get_submodule(path)].add(count)
    return table


def _is_all_it_does(module: nn.Module, asked: list[Request], nodes: Mapping[nn.Module, set[int]]) -> bool:
    is_leaf = not any(True for _ in module.children())
    return is_leaf and nodes[module] == {1} and not any(request.constants or request.is_call for request in asked)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; modes and buffers are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), kept_buffers(model):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers are as before afterwards."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _observe(
    model: nn.Module, callers: Mapping[nn.Module, list[Request]], whole: set[nn.Module], args: tuple[Any, ...]
) -> tuple[dict[nn.Module, list[Any]], dict[nn.Module, Boundary]]:
    """What the modules return, and the calls that they make, in one run."""
    results: dict[nn.Module, list[Any]] = {module: [] for module in whole}
    handles = [module.register_forward_hook(lambda m, _, result: results[m].append(kept(result))) for module in whole]
    boundaries = watch(CallSites(), {m: names_of(r.node for r in asked) for m, asked in callers.items()})
    for module, boundary in boundaries.items():
        handles.append(module.register_forward_pre_hook(boundary.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(boundary.leave, always_call=True))
        boundary.events = []
    try:
        with undisturbed(model):
            call_with(model, args)
    finally:
        for handle in handles:
            handle.remove()
    return results, boundaries


def calls_of(model: nn.Module, modules: Iterable[nn.Module], args: tuple[Any, ...]) -> Mapping[nn.Module, int]:
    """How often one forward of the model, in eval mode, calls each module."""
    calls: dict[nn.Module, int] = dict.fromkeys(modules, 0)

    def count(module: nn.Module, _args: Any) -> None:
        calls[module] += 1

    handles = [module.register_forward_pre_hook(count) for module in calls]
    try:
        with undisturbed(model):
            call_with(model, args)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def names_of(nodes: Iterator[Node] | Sequence[Node]) -> set[str]:
    """The eager names of some operators."""
    return {name for node in nodes for name in _spellings(node.op)}


def _spellings(op: str) -> tuple[str, ...]:
    return (op, *_SPELLINGS.get(op, ()))


def watch(mode: CallSites, operators: Mapping[nn.Module, set[str]]) -> dict[nn.Module, Boundary]:
    """A boundary for each module with operators to watch, and an empty one for every module inside those."""
    boundaries = {module: Boundary(mode, names) for module, names in operators.items()}
    for module in operators:
        for inner in module.modules():
            boundaries.setdefault(inner, Boundary(mode))
    return boundaries


def _match_results(
    module: nn.Module, asked: list[Request], results: list[Any], values: Mapping[TensorRef, torch.Tensor]
) -> Iterator[tuple[str, Location]]:
    free = dict(enumerate(results))
    for request in asked:
        expected = values[request.node.outputs[0]]
        call = next((call for call, result in free.items() if _same(result, expected)), None)
        if call is None:
            raise _lost(request.node)
        del free[call]
        yield request.node.name, ModuleResult(module, call, len(results))


def _match_events(
    module: nn.Module,
    asked: list[Request],
    boundary: Boundary,
    values: Mapping[TensorRef, torch.Tensor],
    captured: CapturedModel,
) -> Iterator[tuple[str, Location]]:
    free, calls = list(boundary.events or ()), boundary.counter.seen
    for request in asked:
        names, expected = _spellings(request.node.op), values[request.node.outputs[0]]
        event = next((e for e in free if e.key[0] in names and _same(_first(e.result, request.node), expected)), None)
        if event is None:
            raise _lost(request.node)
        free.remove(event)
        if not event.used:
            raise InputError(
                f"{describe(request.node)} writes into its operand and what it returns is dropped, so that no "
                "quantized value can take its place; use the result, as in x = x.relu_()"
            )
        places = {
            ref: _place(event, captured.values[captured.value_refs[ref]], request.node) for ref in request.constants
        }
        yield request.node.name, FunctionCall(module, event.call, calls, event.key, places)


def _first(result: Any, node: Node) -> Any:
    """The result of a call, or the first that the node has of several."""
    if not isinstance(result, tuple | list):
        return result
    place = node.outputs[0].output
    return result[place] if place < len(result) else None


def _place(event: Event, constant: torch.Tensor, node: Node) -> int:
    for place, operand in enumerate(event.operands):
        if _same(operand, constant):
            return place
    raise _lost(node)


def _same(result: Any, expected: torch.Tensor) -> bool:
    """Equal up to what another kernel for the same operator may round."""
    if not isinstance(result, torch.Tensor) or result.shape != expected.shape:
        return False
    if torch.equal(result, expected):
        return True
    return bool((result - expected).abs().max() <= 1e-5 * expected.abs().max())


def _lost(node: Node) -> InputError:
    return InputError(
        f"the result of {describe(node)} does not arise when the model runs eagerly on the example inputs; "
        "keep the layer in float by an override, or call the operator as a function whose result is used"
    )
