"""Improves an assignment by the table of what changes of itself do, found by running the network.

Sensitivities of layers alone add up only as far as noises are independent. Around the best assignment b that is known,

    noise(x) ≈ noise(b) + Σ_g d(g, x_g),    d(g, f) = noise(b; g=f) - noise(b)

has the noise of all others in it. The program is solved on this table for assignments that change at most so many
groups of b; what it finds is run, and taken when it is better. When it is not, fewer groups may change (a trust
region: Conn, Gould and Toint 2000, chapter 6); when one alone changes nothing for the better, b is best among its
neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitwright.quant.mixed_precision.problem import Assignment
from bitwright.quant.mixed_precision.tables import Table

# Solves the program: for a table of noise, a table of changes and the most that may be made.
Solve = Callable[[Table, Table, float], dict[str, str] | None]

RADIUS = 8  # groups that may change at first
STEPS = 4  # tables; each costs a run of the network for every group and format


def refined(
    start: Assignment,
    noise: Callable[[Assignment], float],
    allowed: Sequence[str],
    solve: Solve,
    *,
    radius: int = RADIUS,
    steps: int = STEPS,
) -> dict[str, str]:
    """The best assignment on the way from `start`; `start` itself when there is none better.

    Args:
        start: keeps all limits.
        noise: of an assignment, by running it.
        allowed: formats that groups may get.
        solve: the assignment of least noise by a table that keeps all limits and a limit on changes; None for none.
        radius: groups that may change at first.
        steps: of such tables at most.
    """
    best = dict(start)
    for _ in range(steps):
        table, changes = table_around(best, noise, allowed), changes_of(best, allowed)
        better = None
        while radius >= 1 and better is None:
            found = solve(table, changes, float(radius))
            if found is not None and noise(found) < noise(best):
                better = found
            else:
                radius //= 2
        if better is None:
            break
        best = better
    return best


def table_around(best: Assignment, noise: Callable[[Assignment], float], allowed: Sequence[str]) -> Table:
    """What each change of one group does to the noise."""
    constant = noise(best)
    alone = {
        (group, name): noise({**best, group: name}) - constant
        for group, own in best.items()
        for name in allowed
        if name != own
    }
    return Table(constant=constant, alone=alone)


def changes_of(best: Assignment, allowed: Sequence[str]) -> Table:
    """How many groups have another format."""
    return Table(alone={(group, name): 1.0 for group, own in best.items() for name in allowed if name != own})
