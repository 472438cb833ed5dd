"""Which channels to take out: those that save most cost for the change of the loss, until the cost is what was asked.

A step takes the least important channels of one group, as many as lead to the next multiple that kernels like. The
best step is looked for lazily: what a step saves mostly falls as others are taken, so an old figure is an upper bound
and only the best old one is reckoned anew (Minoux 1978).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph

Cost = Callable[[Graph], float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to take out.

    Attributes:
        removed: units.
        cost: of the network without them.
        loss: the sum of their importance.
    """

    removed: frozenset[int]
    cost: float
    loss: float


def choose(
    channels: ChannelGraph,
    groups: Sequence[ChannelGroup],
    importance: Mapping[str, torch.Tensor],
    cost: Cost,
    wanted: float,
    *,
    multiple: int = 8,
) -> Choice:
    """Takes steps until the cost is at most `wanted`.

    Args:
        channels: of the network.
        groups: that may shrink.
        importance: of the units of each group, in its order; groups without one stay.
        cost: of a network by its shapes, in any unit.
        wanted: in the same unit.
        multiple: how many channels stay of each group is a multiple of it, or one whole step less than all.

    Raises:
        InputError: with all groups at their least the cost is still above.
    """
    steps = {
        group.name: _steps(group, importance[group.name], multiple) for group in groups if group.name in importance
    }
    removed: frozenset[int] = frozenset()
    now, loss, round_ = cost(channels.smaller(removed)), 0.0, 0
    queue = [(-float("inf"), -1, name) for name, own in sorted(steps.items()) if own]
    heapq.heapify(queue)
    found: dict[str, float] = {}
    while now > wanted:
        if not queue:
            raise InputError(
                f"cost {wanted:.4g} is out of reach: with all channels at their least it is {now:.4g}; ask for more, "
                "or allow smaller multiples"
            )
        _, known, name = heapq.heappop(queue)
        units, change = steps[name][0]
        if known < round_:
            found[name] = cost(channels.smaller(removed | units))
            gain = (now - found[name]) / max(change, 1e-30)
            heapq.heappush(queue, (-gain, round_, name))
            continue
        removed, now, loss = removed | units, found[name], loss + change
        steps[name].pop(0)
        round_ += 1
        if steps[name]:
            # Nothing is known of the next step of this group: it is looked at first.
            heapq.heappush(queue, (-float("inf"), -1, name))
    return Choice(removed=removed, cost=now, loss=loss)


def _steps(group: ChannelGroup, importance: torch.Tensor, multiple: int) -> list[tuple[frozenset[int], float]]:
    """Units and importance of each step, least important first; the last `multiple` always stay.

    Of a group that has fewer from the start, one does.
    """
    order = importance.argsort(stable=True).tolist()
    steps, taken = [], 0
    left = len(order)
    least = multiple if left >= multiple else 1
    while left > least:
        after = max(least, (left - 1) // multiple * multiple) if left > multiple else left - 1
        chosen = order[taken : taken + left - after]
        steps.append((frozenset(group.units[i] for i in chosen), float(importance[chosen].sum())))
        taken, left = taken + left - after, after
    return steps


def kept_channels(groups: Sequence[ChannelGroup], removed: Collection[int]) -> dict[str, int]:
    """How many units of each group stay."""
    return {group.name: sum(unit not in removed for unit in group.units) for group in groups}
