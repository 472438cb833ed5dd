"""Which layers of one link do not compute what those of another do.

Both links run once and keep their tensors: that gives the *cumulative* error. Then one of them runs again with every
joined tensor taken from the other's run, so that each layer is computed on the reference's inputs: that gives every
layer's *own* error in one run, and a fault does not hide the next one. Own errors are judged; cumulative ones are
only where neither link takes tensors, since rounding ties in early layers are amplified by those behind them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.integer.codes import Grid, quantized
from bitwright.quant.parity.histogram import Histogram, side_by_side
from bitwright.quant.parity.joining import join, join_outputs
from bitwright.quant.parity.judge import Judgement, judge
from bitwright.quant.parity.link import Array, Link, LinkTensor, Recording
from bitwright.quant.parity.opaque import join_opaque
from bitwright.quant.parity.prefix import Prefix
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.spread import Explained, difference, explain
from bitwright.quant.parity.steadiness import unsteady
from bitwright.quant.parity.stretches import ROOM, Stretch, stretches
from bitwright.quant.sqnr import sqnr_db


@dataclass(frozen=True, kw_only=True)
class LayerParity:
    """One tensor of two links.

    Attributes:
        tensor: as the reference knows it.
        other_name: what the other link calls it.
        own: judged given the reference's inputs; None where no link takes tensors.
        cumulative_db: signal to noise with everything before it included.
        sample: the input on which `own` is worst.
        histogram: of a layer that is to blame, what it gives beside what it should, on that input.
    """

    tensor: LinkTensor
    other_name: str
    own: Judgement | None
    cumulative_db: float
    sample: int = 0
    histogram: Histogram | None = None

    @property
    def agrees(self) -> bool:
        """Whether the layer is not to blame."""
        return self.own is None or self.own.agrees


@dataclass(frozen=True, kw_only=True)
class LinkParity:
    """Two links side by side.

    Attributes:
        first: the reference.
        second: the other.
        layers: the joined tensors in running order.
        results: the results by name, judged where no layer is.
        unsteady: tensors and results that the reference itself gives otherwise when it runs again: not judged.
        not_joined: how many tensors of either link the other does not have.
        problem: why nothing could be compared.
        halved: how many partial runs it took to find the breaks by halves; 0 where every layer was looked at.
    """

    first: str
    second: str
    layers: tuple[LayerParity, ...] = ()
    results: Mapping[str, Judgement] = field(default_factory=dict)
    unsteady: tuple[str, ...] = ()
    not_joined: tuple[int, int] = (0, 0)
    problem: str = ""
    halved: int = 0

    @property
    def breaks(self) -> tuple[LayerParity, ...]:
        """The layers that are to blame, in running order; each is an independent fault."""
        return tuple(each for each in self.layers if not each.agrees)

    @property
    def agrees(self) -> bool:
        """Whether both links are the same network."""
        return not self.problem and not self.breaks and all(each.agrees for each in self.results.values())


def compare_links(first: Link, second: Link, inputs: Sequence[Inputs], *, room: float = ROOM) -> LinkParity:
    """Compares two links layer by layer and result by result.

    Args:
        first: the reference.
        second: the other.
        inputs: what to run them on; not empty.
        room: bytes that the tensors compared at one time may take; more of them take more runs (`stretches.py`).

    Raises:
        InputError: there is no input.
        LinkError: a link cannot run.
    """
    if not inputs:
        raise InputError("parity needs at least one input; give --data or recorded inputs")
    joined = join_opaque(first, second, join(first.tensors, second.tensors, second.replaced), inputs[0])
    whole = stretches(first.tensors, second.tensors, joined, room) or [Stretch(names=(), known=())]
    restless = unsteady(first, inputs[0], whole)
    joined = {name: other for name, other in joined.items() if name not in restless}
    pair = _Pair(first, second, joined, room)
    for position, each in enumerate(inputs):
        pair.add(position, each)
    return LinkParity(
        first=first.name,
        second=second.name,
        layers=pair.layers(),
        results={name: each for name, each in pair.results(inputs[0]).items() if name not in restless},
        unsteady=restless,
        not_joined=(len(first.tensors) - len(joined), len(second.tensors) - len(joined)),
    )


class _Pair:
    """Collects what the inputs show."""

    def __init__(self, first: Link, second: Link, joined: Mapping[str, str], room: float) -> None:
        self._first, self._second, self._joined = first, second, joined
        self._stretches = stretches(first.tensors, second.tensors, joined, room) or [Stretch(names=(), known=())]
        self._own: dict[str, tuple[Judgement, int]] = {}
        self._histograms: dict[str, Histogram | None] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        self._outputs: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []

    def add(self, position: int, inputs: Inputs) -> None:
        """Runs one input, stretch by stretch."""
        first = Prefix(self._first, inputs, self._stretches, {name: name for name in self._joined})
        second = Prefix(self._second, inputs, self._stretches, self._joined)
        for number, stretch in enumerate(self._stretches):
            reference, other = first.run(number, stretch), second.run(number, stretch)
            if number == 0:
                self._outputs.append((reference.outputs, other.outputs))
            self._accumulate(stretch, reference, other)
            self._judge(position, inputs, stretch, reference, other.tensors if not self._second.takes_tensors else {})

    def _accumulate(self, stretch: Stretch, reference: Recording, other: Recording) -> None:
        for name in stretch.names:
            if name in reference.tensors and name in other.tensors:
                signal, noise = _squares(reference.tensors[name], other.tensors[name])
                before = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = before[0] + signal, before[1] + noise

    def _judge(
        self, position: int, inputs: Inputs, stretch: Stretch, reference: Recording, other: Mapping[str, Array]
    ) -> None:
        for name, (expected, actual, explained) in self._by_layer(inputs, stretch, reference, other).items():
            found = judge(expected, actual, self._grid(name), self._there(name), explained=explained)
            if name not in self._own or found.severity > self._own[name][0].severity:
                self._own[name] = found, position
                if not found.agrees:
                    self._histograms[name] = side_by_side(expected, actual)

    def layers(self) -> tuple[LayerParity, ...]:
        """In the reference's order."""
        return tuple(
            LayerParity(
                tensor=self._first.tensors[name],
                other_name=other,
                own=self._own[name][0] if name in self._own else None,
                cumulative_db=sqnr_db(*self._sums.get(name, (0.0, 0.0))),
                sample=self._own[name][1] if name in self._own else 0,
                histogram=self._histograms.get(name),
            )
            for name, other in self._joined.items()
        )

    def results(self, inputs: Inputs) -> dict[str, Judgement]:
        """Judged by layers where there are any; else against what a nudge of the inputs does to the reference."""
        reference, other = self._outputs[0]
        known: Mapping[str, Explained] = {}
        names = join_outputs(*({k: v.shape for k, v in each.items()} for each in (reference, other)))
        if isinstance(names, str):
            broken = Judgement(agrees=False, error=names, allowed="", sqnr_db=0.0, severity=math.inf)
            return {"results": broken}
        if not self._own:
            nudged = self._first.run(inputs, nudge=True).outputs
            known = {name: Explained(errors=difference(nudged[name], reference[name])) for name in names}
        found: dict[str, Judgement] = {}
        for first, second in self._outputs:
            for name, there in names.items():
                judged = judge(first[name], second[there], explained=known.get(name))
                if name not in known and (judged.allowed or not math.isinf(judged.severity)):
                    judged = replace(judged, agrees=True, allowed="judged by its layers", severity=0.0)
                if name not in found or judged.severity > found[name].severity:
                    found[name] = judged
        return found

    def _by_layer(
        self, inputs: Inputs, stretch: Stretch, reference: Recording, other: Mapping[str, Array]
    ) -> dict[str, tuple[Array, Array, Explained]]:
        """What each layer should give, what it gives, and what explains a difference; on the inputs of one side."""
        known: Mapping[str, Array]
        if self._second.takes_tensors:
            known = {name: on_grid(value, self._there(name)) for name, value in reference.tensors.items()}
            given = {self._joined[name]: value for name, value in known.items()}
            forced = self._second.run(inputs, wanted=self._there_of(stretch.names), given=given).tensors
            actual = {name: forced[self._joined[name]] for name in stretch.names}
            expected = self._expected(inputs, stretch, reference, known)
        elif self._first.takes_tensors:
            known, actual = other, {name: other[name] for name in stretch.names if name in other}
            expected = self._first.run(inputs, wanted=tuple(actual), given=known)
        else:
            return {}
        errors = {} if self._coarse else self._errors(inputs, known, expected, actual)
        gains = self._gains(inputs, known, expected) if self._coarse else {}
        return {
            name: (value, actual[name], replace(
                self._explained[name], unrounded=expected.unrounded.get(name), errors=errors.get(name),
                gain=gains.get(name, 1.0),
            ))
            for name, value in expected.tensors.items()
            if name in actual
        }  # fmt: skip

    def _errors(
        self, inputs: Inputs, known: Mapping[str, Array], expected: Recording, actual: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What errors of rounding do to every layer alone, by the side that takes tensors."""
        if not self._first.takes_tensors:
            given = {self._joined[name]: value for name, value in known.items()}
            there = self._second.run(inputs, wanted=self._there_of(actual), given=given, nudge=True).tensors
            return {name: difference(there[self._joined[name]], each) for name, each in actual.items()}
        nudged = self._first.run(inputs, wanted=tuple(actual), given=known, nudge=True)
        before = expected.unrounded
        found = {name: difference(each, before[name]) for name, each in nudged.unrounded.items() if name in before}
        real = [name for name in nudged.tensors if self._grid(name) is None]
        return found | {name: difference(nudged.tensors[name], expected.tensors[name]) for name in real}

    def _gains(self, inputs: Inputs, known: Mapping[str, Array], expected: Recording) -> dict[str, float]:
        """See `Explained.gain`: an error on what a layer reads is one on its terms, and so is one on its weights."""
        if not self._first.takes_tensors:
            return {}
        draw = np.random.default_rng(0)
        given = {name: _off(value, draw) for name, value in known.items()}
        there = self._first.run(inputs, wanted=tuple(expected.tensors), given=given).tensors
        found = {}
        for name, value in expected.tensors.items():
            signal, noise = _squares(value, there[name])
            if signal > 0 and noise > 0:
                found[name] = noise / (signal * _OFF**2)
        return found

    @cached_property
    def _explained(self) -> Mapping[str, Explained]:
        return explain(self._first.tensors, self._second.tensors, self._joined, coarse=self._coarse)

    def _there_of(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._joined[name] for name in names)

    def _expected(
        self, inputs: Inputs, stretch: Stretch, reference: Recording, known: Mapping[str, Array]
    ) -> Recording:
        """The reference on operands as the other's grids have them: their rounding is no fault of the reader."""
        unlike = [name for name in known if not _is_same(self._grid(name), self._there(name))]
        if not unlike or not self._first.takes_tensors:
            return reference
        return self._first.run(inputs, wanted=stretch.names, given=known)

    @cached_property
    def _coarse(self) -> bool:
        """Whether the other link has codes and the reference none."""
        return any(each.grid for each in self._second.tensors.values()) and not any(
            each.grid for each in self._first.tensors.values()
        )

    def _grid(self, name: str) -> Grid | None:
        return self._first.tensors[name].grid

    def _there(self, name: str) -> Grid | None:
        return self._second.tensors[self._joined[name]].grid


# Far above what float32 rounds, and small enough for functions to be linear over it.
_OFF = 2.0**-10


def _off(values: Array, draw: np.random.Generator) -> Array:
    """Real values times `1 + 2**-10 g`, g normal; whole numbers stay."""
    if values.dtype.kind != "f":
        return values
    return (values * (1 + _OFF * draw.standard_normal(values.shape))).astype(values.dtype)


def on_grid(values: Array, grid: Grid | None) -> Array:
    """Values as codes have them; real ones stay."""
    return values if grid is None else grid.real(quantized(values, grid))


def _is_same(first: Grid | None, second: Grid | None) -> bool:
    return second is None or (first is not None and first.is_same(second))


def _squares(expected: Array, actual: Array) -> tuple[float, float]:
    """Σ expected² and Σ (expected - actual)²; nothing where they cannot be subtracted."""
    if expected.shape != actual.shape or expected.dtype.kind not in "fiu":
        return 0.0, 0.0
    a, b = (np.nan_to_num(each.astype(np.float64), posinf=0, neginf=0) for each in (expected, actual))
    return float(np.square(a).sum()), float(np.square(a - b).sum())
