"""A link run a stretch at a time, each from what it has computed before, kept as far as it is still read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitwright.quant.parity.link import Array, Link, Recording
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.stretches import Stretch


class Prefix:
    """One run of a link over all stretches, in their order."""

    def __init__(self, link: Link, inputs: Inputs, parts: Sequence[Stretch], names: Mapping[str, str]) -> None:
        """Begins a run.

        Args:
            link: whose tensors are recorded; one that takes none runs whole for each stretch.
            inputs: the arguments of the network's `forward`.
            parts: the stretches, by the reference's names.
            names: the link's own name of each tensor.
        """
        self._link, self._inputs, self._names = link, inputs, names
        self._last = {name: number for number, part in enumerate(parts) for name in part.known}
        self._kept: dict[str, Array] = {}

    def run(self, number: int, part: Stretch) -> Recording:
        """Computes the next stretch.

        Args:
            number: of the stretch.
            part: the stretch itself.

        Returns:
            Its tensors, and what they are made from, by the reference's names; the results with the first one.
        """
        if not self._link.takes_tensors:
            found = self._link.run(self._inputs, wanted=[self._names[name] for name in part.known])
            return self._renamed(found, part.known, {})
        before = {name: self._kept[name] for name in part.known if name in self._kept}
        wanted = tuple(name for name in part.known if name not in before)
        found = self._link.run(
            self._inputs,
            wanted=[self._names[name] for name in wanted],
            given={self._names[name]: value for name, value in before.items()},
        )
        named = self._renamed(found, wanted, before)
        self._kept = {name: each for name, each in {**self._kept, **named.tensors}.items() if self._last[name] > number}
        return named

    def _renamed(self, found: Recording, names: Sequence[str], before: Mapping[str, Array]) -> Recording:
        own = [(name, self._names[name]) for name in names]
        return Recording(
            outputs=found.outputs,
            tensors={**before, **{name: found.tensors[here] for name, here in own if here in found.tensors}},
            unrounded={name: found.unrounded[here] for name, here in own if here in found.unrounded},
        )
