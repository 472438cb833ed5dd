"""A network that cannot be captured whole, as its largest submodules that can; the rest stays as the user wrote it.

The user's own model runs, the arguments of its submodules are recorded, and from the top of the module tree downwards
each submodule is captured with what it was given. Putting captured regions back into the running model needs
`Region.module_path`, the place, and `Region.captured.run`, which takes the arguments of the module's `forward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.capture_failure import CaptureFailure, failure_of
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.control_flow import read_forward
from bitwright.quant.errors import InputError
from bitwright.quant.recording import Call, Cost, measure_calls, record_calls, run, signature

MAX_SHAPES = 4  # a module that is called with more has, in effect, no static shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A submodule that was captured with the arguments of one of its calls.

    Attributes:
        name: under which its tensors are known (`TensorRef.region`): the module's path, from its second shape on with
            a number (`head`, `head#2`); empty for the whole model.
        module_path: the submodule's place in the model.
        module_type: its class.
        captured: the network.
        args: what the submodule was called with.
        kwargs: keyword arguments likewise.
        calls: how often the user's run called it with these shapes.
        cost: what those calls took.
        parameters: how many numbers its parameters hold.
    """

    name: str
    module_path: str
    module_type: str
    captured: CapturedModel
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    calls: int
    cost: Cost
    parameters: int


@dataclass(frozen=True, kw_only=True)
class EagerModule:
    """A submodule whose `forward` stays as it is; what it calls may be regions.

    Attributes:
        module_path: its place in the model; empty for the model itself.
        module_type: its class.
        failures: what stood in the way: where capturing stopped, then every other line of its source that would.
    """

    module_path: str
    module_type: str
    failures: tuple[CaptureFailure, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """A network in pieces.

    Attributes:
        regions: what was captured, in the order of the module tree; a single one for a model that is captured whole.
        eager: what was not, and why.
        total: the cost of the user's whole run.
        parameters: how many numbers the whole model's parameters hold.
        captured_parameters: how many of them lie in regions.
    """

    regions: tuple[Region, ...]
    eager: tuple[EagerModule, ...]
    total: Cost
    parameters: int
    captured_parameters: int

    @property
    def is_whole(self) -> bool:
        """Whether the model was captured as one."""
        return not self.eager

    @property
    def failures(self) -> tuple[CaptureFailure, ...]:
        """Everything that stood in the way, for the linter."""
        return tuple(dict.fromkeys(each for module in self.eager for each in module.failures))

    @property
    def captured_cost(self) -> Cost:
        """What all regions took in the user's run."""
        return sum((region.cost for region in self.regions), Cost())

    @property
    def mac_share(self) -> float:
        """Which share of the run's multiply-accumulates lies in regions; 1 when there are none at all."""
        return self.captured_cost.macs / self.total.macs if self.total.macs else 1.0

    @property
    def parameter_share(self) -> float:
        """Which share of the model's parameters lies in regions; 1 when there are none at all."""
        return self.captured_parameters / self.parameters if self.parameters else 1.0

    @property
    def time_share(self) -> float:
        """Which share of the wall time of one eager run was spent in regions."""
        return self.captured_cost.seconds / self.total.seconds


def find_regions(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Regions:
    """Captures a model whole, or else its largest submodules that can be captured.

    The model's mode, buffers, plain attributes and the random state are afterwards what they were before.

    Args:
        model: the user's network.
        args: arguments of one run of it.
        kwargs: keyword arguments likewise.

    Raises:
        InputError: the model does not run on these arguments, or a weight is not finite.
    """
    named = dict(kwargs or {})
    _check_that_it_runs(model, args, named)
    pieces, eager = _capture_tree(model, args, named)
    total, costs = measure_calls(model, args, named, {each.call.path for each in pieces})
    regions = tuple(region for each in pieces for region in _region(model, each, costs))
    captured = {id(p): p.numel() for r in regions for p in model.get_submodule(r.module_path).parameters()}
    return Regions(
        regions=regions,
        eager=tuple(eager),
        total=total,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        captured_parameters=sum(captured.values()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    name: str
    call: Call
    captured: CapturedModel


def _check_that_it_runs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        run(model, args, kwargs)
    except (Exception, SystemExit) as error:  # the user's forward may raise anything
        failure = failure_of(error)
        where = f"\n  {failure.source}: {failure.source.text}" if failure.source else ""
        raise InputError(f"the model does not run on these arguments: {failure.reason}{where}") from error


def _capture_tree(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[_Piece], list[EagerModule]]:
    """From the root downwards, a level a round: what is captured is not entered, what is not is taken apart."""
    order = {path: place for place, (path, _) in enumerate(model.named_modules())}
    pieces: list[_Piece] = []
    eager: list[EagerModule] = []
    level, calls = [""], [Call(path="", args=args, kwargs=kwargs, source=None)]
    while level:
        below: list[str] = []
        for path in level:
            module, mine = model.get_submodule(path), [call for call in calls if call.path == path]
            found = _capture_calls(module, mine)
            if isinstance(found, CaptureFailure):
                if path == "" or next(module.children(), None) or next(module.parameters(), None) is not None:
                    eager.append(_eager(module, mine, found))
            else:
                pieces += found
            if not mine or isinstance(found, CaptureFailure):
                below += [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        level = [path for path in below if path in order]  # a module in two places is entered at the first
        calls = record_calls(model, args, kwargs, set(level)) if level else []
    return sorted(pieces, key=lambda piece: order[piece.call.path]), eager


def _capture_calls(module: torch.nn.Module, calls: Sequence[Call]) -> list[_Piece] | CaptureFailure:
    """One piece for each shape that a module is called with, or why one of them is not to be had."""
    if len(calls) > MAX_SHAPES:
        return CaptureFailure(
            reason=f"{type(module).__name__} is called with {len(calls)} different shapes in one run",
            source=calls[0].source,
            suggestion="pad its inputs to one size, so that one graph serves all calls",
        )
    pieces = []
    for number, call in enumerate(calls, 1):
        name = call.path if number == 1 else f"{call.path}#{number}"
        try:
            captured = capture(module, call.args, call.kwargs, region=name, called_from=call.source)
        except CaptureError as error:
            return error.failure
        if captured.graph.nodes:  # an identity, or a dropout that does nothing, is no network
            pieces.append(_Piece(name=name, call=call, captured=captured))
    return pieces


def _eager(module: torch.nn.Module, calls: Sequence[Call], failure: CaptureFailure) -> EagerModule:
    if failure.source is None:  # nothing of the user's own ran: name the line that calls it
        failure = CaptureFailure(
            reason=failure.reason,
            source=calls[0].source,
            suggestion=failure.suggestion,
            data_dependent=failure.data_dependent,
        )
    lines = {(failure.source.file, failure.source.line)} if failure.source else set()
    more = [each for each in _read(module, calls) if each.source and (each.source.file, each.source.line) not in lines]
    return EagerModule(
        module_path=calls[0].path, module_type=type(module).__name__, failures=tuple(dict.fromkeys([failure, *more]))
    )


def _read(module: torch.nn.Module, calls: Sequence[Call]) -> Iterator[CaptureFailure]:
    for call in calls:
        yield from (each.failure() for each in read_forward(module, call.args, call.kwargs))


def _region(
    model: torch.nn.Module, piece: _Piece, costs: Mapping[tuple[str, str], tuple[int, Cost]]
) -> Iterator[Region]:
    """The region of a piece; none when it only ever runs inside of another one."""
    call = piece.call
    number, cost = costs.get((call.path, signature(call.args, call.kwargs)), (0, Cost()))
    if number:
        module = model.get_submodule(call.path)
        yield Region(
            name=piece.name,
            module_path=call.path,
            module_type=type(module).__name__,
            captured=piece.captured,
            args=call.args,
            kwargs=call.kwargs,
            calls=number,
            cost=cost,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
        )
