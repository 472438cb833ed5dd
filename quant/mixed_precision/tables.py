"""A cost as a sum over groups and over pairs of neighbours, found by asking for the whole network's.

Around a base assignment b, with `T(...)` the cost with some groups changed:

    T(x) ≈ T(b) + Σ_g u(g, x_g) + Σ_(g, h) w(g, h, x_g, x_h)
    u(g, f) = T(b; g=f) - T(b),    w(g, h, f, f') = T(b; g=f, h=f') - T(b) - u(g, f) - u(h, f')

It is exact when the cost is one of layers and of boundaries between two of them (kernels, Q/DQ, reformatting); what
three groups do together is left out, so whoever uses it checks the whole network's cost in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bitwright.quant.mixed_precision.problem import Assignment, Pair


@dataclass(frozen=True, kw_only=True)
class Table:
    """Costs of choices; what is not listed costs nothing.

    Attributes:
        constant: of every assignment.
        alone: by group and format.
        pairs: by pair of groups, then by their formats.
    """

    constant: float = 0.0
    alone: Mapping[Pair, float] = field(default_factory=dict)
    pairs: Mapping[Pair, Mapping[Pair, float]] = field(default_factory=dict)

    def total(self, assignment: Assignment) -> float:
        """What an assignment costs."""
        groups = sum(self.alone.get(choice, 0.0) for choice in assignment.items())
        between = sum(
            costs.get((assignment[one], assignment[other]), 0.0) for (one, other), costs in self.pairs.items()
        )
        return self.constant + groups + between


def expand(
    evaluate: Callable[[Assignment], float],
    base: Assignment,
    formats: Sequence[str],
    edges: Sequence[Pair],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Finds the table of a cost.

    Args:
        evaluate: the whole network's cost.
        base: the assignment around which it is expanded.
        formats: that each group may get.
        edges: pairs of groups that interact.
        progress: called with the number of evaluations done and of all.
    """
    changes = {group: [name for name in formats if name != own] for group, own in base.items()}
    pairs_of = {(a, b): [(f, g) for f in changes[a] for g in changes[b]] for a, b in edges}
    count = 1 + sum(map(len, changes.values())) + sum(map(len, pairs_of.values()))
    done = 0

    def ask(changed: Mapping[str, str]) -> float:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, count)
        return evaluate({**base, **changed})

    constant = ask({})
    alone = {(group, name): ask({group: name}) - constant for group, names in changes.items() for name in names}
    pairs: dict[Pair, dict[Pair, float]] = {}
    for (a, b), choices in pairs_of.items():
        found = {(f, g): ask({a: f, b: g}) - constant - alone[a, f] - alone[b, g] for f, g in choices}
        if any(found.values()):
            pairs[a, b] = found
    return Table(constant=constant, alone=alone, pairs=pairs)
