"""How much noise each choice brings into the results: to first order for all, by running the network where asked.

*Alone*: a group (or a block of them) is quantized and the rest is float. *Back*: everything is quantized and it is in
float. Both are runs of the network; the estimate from gradients costs one forward and a few backward passes for all
groups and formats together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from statistics import median

from bitwright.quant.mixed_precision.formats import FLOAT
from bitwright.quant.mixed_precision.networks import MixedNetworks
from bitwright.quant.mixed_precision.problem import Assignment, Pair
from bitwright.quant.mixed_precision.tables import Table, expand
from bitwright.quant.plan import QuantPlan


class NoiseTable:
    """Sensitivities of one network.

    Attributes:
        networks: puts networks together and runs them.
        measured: noise of each group alone in a format, as far as it was run.
    """

    def __init__(self, networks: MixedNetworks, plan: Callable[[Assignment], QuantPlan]) -> None:
        """Nothing is computed before it is asked for.

        Args:
            networks: of the problem; its formats include `FLOAT`.
            plan: of an assignment.
        """
        self.networks, self.problem = networks, networks.problem
        self.measured: dict[Pair, float] = {}
        self._plan = plan

    @cached_property
    def estimated(self) -> Table:
        """First order: what rounding each tensor does to the results, summed over those that an assignment rounds.

        A tensor between two groups is rounded once; the table's pairs say so.
        """
        by_tensor = self.networks.noise_by_rounding()

        def noise(assignment: Assignment) -> float:
            decided = self._plan(assignment)
            specs = {**decided.activations, **decided.weights}
            return sum(by_tensor.get((ref, repr(spec)), 0.0) for ref, spec in specs.items())

        return expand(noise, self._all_float, self.problem.allowed, self.problem.edges)

    @property
    def table(self) -> Table:
        """The estimates with what was measured in their place; the rest scaled by what those were off (median)."""
        first = self.estimated
        off = [found / first.alone[key] for key, found in self.measured.items() if first.alone.get(key, 0.0) > 0.0]
        scale = median(off) if off else 1.0
        return Table(
            constant=first.constant,
            alone={key: self.measured.get(key, scale * value) for key, value in first.alone.items()},
            pairs={pair: {key: scale * value for key, value in each.items()} for pair, each in first.pairs.items()},
        )

    def measure(self, choices: Iterable[Pair]) -> None:
        """Runs the network with each of some groups alone in a format."""
        for group, name in choices:
            if (group, name) not in self.measured and name != FLOAT.name:
                self.measured[group, name] = self.alone([group], name)

    def alone(self, groups: Collection[str], name: str) -> float:
        """Relative noise with some groups in a format and the rest in float."""
        return self.networks.noise({**self._all_float, **dict.fromkeys(groups, name)})

    def back(self, groups: Collection[str], name: str) -> float:
        """Relative noise that goes when everything is in a format and some groups go back to float."""
        full = self.problem.uniform(name)
        return self.networks.noise(full) - self.networks.noise({**full, **dict.fromkeys(groups, FLOAT.name)})

    def blocks(self, depth: int) -> dict[str, tuple[str, ...]]:
        """Groups by the first `depth` parts of their paths: `features.3` holds `features.3.conv.0.0` at depth 2."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.problem.groups:
            block = ".".join(name.split(".")[:depth])
            found[block] = (*found.get(block, ()), name)
        return found

    @cached_property
    def _all_float(self) -> dict[str, str]:
        return self.problem.uniform(FLOAT.name)
