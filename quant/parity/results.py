"""Whether two networks compute the same: every result compared, on recorded inputs and on random ones.

The error of a tensor is `max |b - a| / max |a|`: relative to the scale of the reference, since elements near zero have
no meaningful relative error of their own. Up to `EXACT` two tensors count as the same computation in another order of
additions; above that, the second network is an approximation of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy.typing as npt
import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef
from bitwright.quant.sqnr import sqnr_db

EXACT = 1e-5  # of a tensor's scale; float32 keeps seven digits, of which a few thousand additions take one or two


class Origin(StrEnum):
    """Where inputs came from."""

    RECORDED = "recorded"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arguments of one call of `forward`, and what the network remembers before it.

    Attributes:
        args: positional ones.
        kwargs: those by keyword.
        origin: where they came from.
        state: buffers that `forward` changes, by their names in the network; those left out are as at capture.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = Origin.RECORDED
    state: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TensorParity:
    """How far one result of the second network lies from the first's, over all inputs.

    Attributes:
        name: where it stands in what `forward` returns (`['boxes']`), the name of a state, or a tensor's reference.
        max_abs: the largest absolute difference.
        max_rel: relative to the largest absolute value of the reference, the worst of the inputs.
        sqnr: in dB over all inputs.
        bit_equal: no element differs.
        mismatch: why the tensors cannot be compared or differ in kind; empty when they can.
    """

    name: str
    max_abs: float
    max_rel: float
    sqnr: float
    bit_equal: bool
    mismatch: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether the difference is that of another order of additions at most."""
        return not self.mismatch and self.max_rel <= EXACT

    def __str__(self) -> str:
        if self.mismatch:
            return f"{self.name}: {self.mismatch}"
        if self.bit_equal:
            return f"{self.name}: bit for bit equal"
        return f"{self.name}: max error {self.max_rel:.1e} of its scale, {self.sqnr:.1f} dB"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What a comparison of two networks found.

    Attributes:
        tensors: one entry for each result, outgoing state and inner tensor that was asked for.
        recorded: how many recorded inputs were compared.
        random: how many random ones.
        structure: how the structures of the results differ; empty when they are the same.
        unsteady: results of the first network that differ between two runs on the same input; nothing can be said
            about those.
    """

    tensors: tuple[TensorParity, ...]
    recorded: int
    random: int
    structure: str = ""
    unsteady: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether the results could be compared at all, each with its own."""
        return not self.structure and not self.unsteady and not any(each.mismatch for each in self.tensors)

    @property
    def is_exact(self) -> bool:
        """Whether every result is the same up to the order of additions."""
        return self.is_sound and all(each.is_exact for each in self.tensors)

    @property
    def max_rel(self) -> float:
        """The largest error of any result, relative to that result's scale."""
        return max((each.max_rel for each in self.tensors), default=0.0)

    @property
    def sqnr(self) -> float:
        """The lowest SQNR of any result, in dB."""
        return min((each.sqnr for each in self.tensors), default=sqnr_db(0.0, 0.0))

    def reason(self) -> str:
        """What stands in the way of an exact match, worst first; empty when there is nothing."""
        if self.structure:
            return self.structure
        if self.unsteady:
            return f"{self.unsteady[0]} differs from run to run on the same input"
        worst = [each for each in self.tensors if each.mismatch]
        worst += sorted((each for each in self.tensors if not each.is_exact), key=lambda each: -each.max_rel)
        return str(worst[0]) if worst else ""

    def __str__(self) -> str:
        inputs = f"{self.recorded} recorded and {self.random} random inputs"
        if not self.is_sound:
            return f"{self.reason()} ({inputs})"
        if all(each.bit_equal for each in self.tensors):
            return f"bit for bit equal on {inputs}"
        kind = "exact" if self.is_exact else "approximate"
        return f"{kind}: max error {self.max_rel:.1e} of the result's scale, {self.sqnr:.1f} dB, on {inputs}"


Forward = Callable[..., Any]


def compare(
    first: CapturedModel | Forward,
    second: CapturedModel | Forward,
    inputs: Iterable[Inputs],
    *,
    inner: Iterable[TensorRef] = (),
) -> Parity:
    """Runs two networks on the same inputs and compares every result.

    Args:
        first: the reference: a captured network, a module in eval mode or any function.
        second: what is compared with it.
        inputs: what to run them on.
        inner: tensors inside, known to both networks under these names; only for captured networks.

    Raises:
        InputError: there is no input, or `inner` is asked of something that is no captured network.
    """
    given = list(inputs)
    wanted = tuple(dict.fromkeys(inner))
    if not given:
        raise InputError("inputs is empty; give recorded inputs, or some of random_inputs")
    if wanted and not (isinstance(first, CapturedModel) and isinstance(second, CapturedModel)):
        raise InputError("inner tensors can only be compared between captured networks")
    tallies: dict[str, _Tally] = {}
    structure = ""
    unsteady: tuple[str, ...] = ()
    for position, each in enumerate(given):
        reference, spec = _results(first, each, wanted)
        if position == 0:
            again, _ = _results(first, each, wanted)
            unsteady = tuple(name for name in reference if not _same(reference[name], again.get(name)))
        other, other_spec = _results(second, each, wanted)
        if spec != other_spec:
            structure = f"the first returns {_spell(spec)}, the second {_spell(other_spec)}"
            break
        for name, value in reference.items():
            tallies.setdefault(name, _Tally(name)).add(value, other.get(name))
    counts = {origin: sum(each.origin is origin for each in given) for origin in Origin}
    return Parity(
        tensors=tuple(tally.result() for tally in tallies.values()),
        recorded=counts[Origin.RECORDED],
        random=counts[Origin.RANDOM],
        structure=structure,
        unsteady=unsteady,
    )


def _results(
    network: CapturedModel | Forward, inputs: Inputs, inner: Sequence[TensorRef]
) -> tuple[dict[str, Any], pytree.TreeSpec]:
    """Every leaf of the results by its place, the outgoing state, the inner tensors; and the results' structure."""
    found: dict[str, Any] = {}
    wanted = set(inner)

    def note(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in wanted:
            found[str(ref)] = tensor
        return tensor

    with torch.no_grad():
        if isinstance(network, CapturedModel):
            state = network.initial_state()
            results = network.run(*inputs.args, state=state, transform=note if wanted else None, **inputs.kwargs)
            found.update({f"state {name}": value for name, value in state.items()})
        else:
            results = network(*inputs.args, **inputs.kwargs)
    leaves, spec = pytree.tree_flatten_with_path(results)
    found.update({f"result{pytree.keystr(path)}": leaf for path, leaf in leaves})
    return found, spec


def _spell(spec: pytree.TreeSpec) -> str:
    """A structure with its leaves as `*`: `{'boxes': *, 'scores': *}`."""

    class _Leaf:
        def __repr__(self) -> str:
            return "*"

    return repr(pytree.tree_unflatten([_Leaf()] * spec.num_leaves, spec))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
    return bool(first == second)


class _Tally:
    """Differences of one result, summed over the inputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.max_abs = self.max_rel = self.signal = self.noise = 0.0
        self.bit_equal, self.mismatch = True, ""

    def add(self, first: Any, second: Any) -> None:
        self.mismatch = self.mismatch or _mismatch(first, second)
        if self.mismatch:
            self.bit_equal = False
        elif isinstance(first, torch.Tensor) and first.numel():
            self._add(first, second)

    def _add(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Where both are NaN, or the same infinity, there is no difference."""
        wide = torch.complex128 if first.is_complex() else torch.float64
        a, b = first.to(wide), second.to(wide)
        alike = (a == b) | (a.isnan() & b.isnan())
        difference = (b - a).abs().masked_fill(alike, 0.0)
        reference = a.abs().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        largest, scale = float(difference.max()), float(reference.max())
        self.bit_equal = self.bit_equal and bool(alike.all())
        self.max_abs = max(self.max_abs, largest)
        if largest > 0.0:
            self.max_rel = max(self.max_rel, largest / scale if scale > 0.0 else math.inf)
        self.signal += float((reference**2).sum())
        self.noise += float((difference**2).sum())

    def result(self) -> TensorParity:
        return TensorParity(
            name=self.name,
            max_abs=self.max_abs,
            max_rel=self.max_rel,
            sqnr=0.0 if self.mismatch else sqnr_db(self.signal, self.noise),
            bit_equal=self.bit_equal,
            mismatch=self.mismatch,
        )


def _mismatch(first: Any, second: Any) -> str:
    """Why two results cannot be compared by a distance; empty when they can."""
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return "" if first == second else f"the first is {first!r}, the second {second!r}"
    if first.shape != second.shape:
        return f"the first is {list(first.shape)}, the second {list(second.shape)}"
    if first.dtype != second.dtype:
        return f"the first is {first.dtype}, the second {second.dtype}"
    if first.is_floating_point():
        lone_nan = int((first.isnan() != second.isnan()).sum())
        infinite = int(((first != second) & (first.isinf() | second.isinf())).sum())
        if lone_nan or infinite:
            return f"{lone_nan} elements are NaN and {infinite} infinite in one of the two only"
    elif not first.is_complex() and (different := int((first != second).sum())):
        return f"{different} of {first.numel()} integers differ"
    return ""
