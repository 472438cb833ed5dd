"""Runs a captured network on data and turns what flows through it into qparams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.observers.base import Observer, WeighingObserver, create_observer
from bitwright.quant.observers.extremes import NotFiniteError
from bitwright.quant.observers.importance import Importance
from bitwright.quant.operand_axes import summed_axis
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams, choose_qparams, second_level
from bitwright.quant.scheme import QParamsSpec, ScaleKind
from bitwright.quant.softmax_scale import with_softmax_scales

Arguments = tuple[Any, ...]
Progress = Callable[[int], None]


class Onlooker(Protocol):
    """Sees what flows while calibration runs the network in float.

    Attributes:
        refs: the tensors that it asks for.
    """

    refs: Collection[TensorRef]

    def beside(self, piece: int, observe: Transform) -> Transform:
        """What shows the tensors of a piece of data to both, by the piece's place."""


@dataclass(frozen=True)
class Calibration:
    """What calibration found.

    Attributes:
        qparams: of each activation whose scale is fixed.
        dynamic: how the others take theirs from the data.
    """

    qparams: Mapping[TensorRef, QParams]
    dynamic: Mapping[TensorRef, DynamicQParams]


def calibrate(
    captured: CapturedModel,
    plan: QuantPlan,
    batches: Iterable[Any],
    *,
    importance: Mapping[TensorRef, Importance] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Observes every activation of the plan and chooses its qparams.

    Memory does not grow with the data: observers stream. State that `forward` mutates advances from batch to batch
    in a copy; the captured network keeps its own.

    Args:
        captured: the network, as planned.
        plan: which activations to observe.
        batches: each as `CapturedModel.arguments` reads it: a tensor, or a tuple of `forward`'s arguments; a larger
            batch than the captured one is split along dimension 0.
        importance: what errors in each channel and sample weigh; observers that balance errors take it into account.
        progress: called with the number of batches done.

    Raises:
        InputError: no batch, or NaN or infinity in an activation (names the tensor and the batch).
    """
    return calibrate_pieces(captured, plan, numbered(captured, batches), importance=importance, progress=progress)


def calibrate_pieces(
    captured: CapturedModel,
    plan: QuantPlan,
    pieces: Iterable[tuple[int, Arguments]],
    *,
    importance: Mapping[TensorRef, Importance] | None = None,
    progress: Progress | None = None,
    also: Onlooker | None = None,
) -> Calibration:
    """As `calibrate`, of batches that have been cut already.

    Args:
        captured: the network, as planned.
        plan: which activations to observe.
        pieces: of captured batch size, each with the number of its batch.
        importance: as of `calibrate`.
        progress: called with the number of batches done.
        also: looks at tensors of its own in the same run.
    """
    observers = _observers(plan)
    unseen = set(observers.values())
    for ref, observer in observers.items():
        if captured.graph.is_constant(ref):
            observer.update(captured.values[captured.value_refs[ref]])
            unseen.discard(observer)
    weighing = {
        ref: (observer, importance[ref])
        for ref, observer in observers.items()
        if importance and ref in importance and isinstance(observer, WeighingObserver)
    }
    state = captured.initial_state()
    running = ready_to_run(captured, {*observers, *(also.refs if also else ())})
    batch = -1
    for piece, (number, args) in enumerate(pieces):
        if progress and number > batch >= 0:
            progress(number)
        batch = number
        observe = _observing(captured, observers, weighing, unseen, batch)
        running.run(*args, state=state, transform=also.beside(piece, observe) if also else observe)
    if batch < 0:
        raise InputError("calibration got no batch; give at least one")
    if progress:
        progress(batch + 1)
    # A tensor without elements never shows a value; like one of zeros only, it gets scale 1.
    empty = (torch.tensor(0.0), torch.tensor(0.0))
    ranges = {ref: empty if observer in unseen else observer.range() for ref, observer in observers.items()}
    specs = {**plan.activations, **plan.weights}
    dynamic = {ref: spec for ref, spec in plan.activations.items() if spec.dynamic}
    chosen = {ref: choose_qparams(*found, specs[ref]) for ref, found in ranges.items() if ref not in dynamic}
    return Calibration(
        with_softmax_scales(captured.graph, plan, chosen),
        {ref: _dynamic_qparams(captured, ref, spec, ranges.get(ref)) for ref, spec in dynamic.items()},
    )


def _dynamic_qparams(
    captured: CapturedModel, ref: TensorRef, spec: QParamsSpec, found: tuple[torch.Tensor, torch.Tensor] | None
) -> DynamicQParams:
    axis = None if spec.block_size is None else summed_axis(captured.graph, ref)
    scale = None if found is None else second_level(torch.maximum(-found[0], found[1]), spec)
    return DynamicQParams(spec=spec, axis=axis, tensor_scale=scale)


def _observers(plan: QuantPlan) -> dict[TensorRef, Observer]:
    """One observer a tensor; tensors that share qparams share the observer, constants among them, too."""
    observers: dict[TensorRef, Observer] = {}
    for group in plan.groups:
        spec = next(spec for ref, spec in plan.activations.items() if ref in group)
        shared = create_observer(spec)
        observers.update(dict.fromkeys(group, shared))
    for ref, spec in plan.activations.items():
        # Of a dynamic scale at most the second level is fixed.
        if ref not in observers and (not spec.dynamic or spec.scale_kind is ScaleKind.FLOAT8_E4M3):
            observers[ref] = create_observer(spec)
    return observers


def _observing(
    captured: CapturedModel,
    observers: Mapping[TensorRef, Observer],
    weighing: Mapping[TensorRef, tuple[WeighingObserver, Importance]],
    unseen: set[Observer],
    batch: int,
) -> Callable[[TensorRef, torch.Tensor], torch.Tensor]:
    def observe(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        observer = observers.get(ref)
        if observer is not None and values.numel():
            try:
                if ref in weighing:
                    weighs, importance = weighing[ref]
                    weighs.update(values, importance)
                else:
                    observer.update(values)
            except NotFiniteError as error:
                raise InputError(_not_finite(captured, ref, str(error), batch)) from None
            unseen.discard(observer)
        return values

    return observe


def _not_finite(captured: CapturedModel, ref: TensorRef, what: str, batch: int) -> str:
    node = captured.graph.producers.get(ref)
    where = f"the result of {node.op!r} in {node.module_path or 'the model'!r}" if node else f"input {ref}"
    source = f" ({node.source})" if node and node.source else ""
    return f"calibration batch {batch}: {where}{source} contains {what}; remove the sample or mend the layer"


def split_batch(captured: CapturedModel, args: Arguments) -> Iterator[Arguments]:
    """Cuts a batch into pieces of the captured batch size; the last is filled up from the beginning.

    Arguments that already fit pass through; what does not fit is refused by `CapturedModel.run`.
    """
    leaves, spec = pytree.tree_flatten(args)
    expected = [node.meta["val"] for node in captured.input_nodes]
    sizes = {
        (leaf.shape[0], want.shape[0])
        for leaf, want in zip(leaves, expected, strict=False)
        if isinstance(leaf, torch.Tensor)
        and isinstance(want, torch.Tensor)
        and leaf.dim() == want.dim() > 0
        and leaf.shape[0] != want.shape[0]
    }
    if len(sizes) != 1:
        yield args
        return
    have, size = sizes.pop()
    for start in range(0, have, size):
        rows = torch.arange(start, start + size) % have
        yield pytree.tree_unflatten(
            [leaf[rows] if isinstance(leaf, torch.Tensor) and leaf.shape[:1] == (have,) else leaf for leaf in leaves],
            spec,
        )


def numbered(captured: CapturedModel, batches: Iterable[Any]) -> Iterator[tuple[int, Arguments]]:
    """The pieces of captured batch size, each with the number of its batch."""
    for number, batch in enumerate(batches):
        for piece in split_batch(captured, captured.arguments(batch)):
            yield number, piece


def take(captured: CapturedModel, batches: Iterable[Any], samples: int) -> Sequence[Arguments]:
    """The first `samples` pieces of captured batch size."""
    return [piece for _, piece in itertools.islice(numbered(captured, batches), samples)]
