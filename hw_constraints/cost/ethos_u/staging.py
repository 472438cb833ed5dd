"""Which feature maps stay on chip where they would lie off chip otherwise: those whose traffic saves most, that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitwright.hw_constraints.cost.ethos_u.figures import System
from bitwright.hw_constraints.cost.ethos_u.live import Lifetimes, Range, lifetimes
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind
from bitwright.hw_constraints.cost.ethos_u.step import Step

GROUP = 20  # ranges that compete at once, at most [V]
PRICELESS = 1 << 31  # a feature map that a cascade reads beside its rolling buffer [V]


def stage_feature_maps(steps: Sequence[Step], system: System, rolling: dict[int, int]) -> set[int]:
    """The feature maps on chip, by `id`.

    Args:
        steps: the schedule.
        system: whose feature maps lie off chip at first.
        rolling: bytes of rolling buffers by feature map; they lie on chip in any case.
    """
    candidates = {
        id(step.op.written): step.op.written
        for step in steps
        if not step.in_cascade and step.op.written.consumers and not step.op.written.is_output
    }
    kept = set(candidates)
    alive = lifetimes(steps, kept, system, rolling)
    competing = [piece for piece in alive.ranges if any(id(tensor) in candidates for tensor in piece.tensors)]
    if max(alive.usage()) > system.staging_limit:
        for piece in _evicted(alive, competing, steps, system):
            kept -= {id(tensor) for tensor in piece.tensors}
    return _with_partners(steps, kept, rolling)


def _evicted(alive: Lifetimes, pieces: Sequence[Range], steps: Sequence[Step], system: System) -> list[Range]:
    """What cannot stay, and of what can, but not all of it at once, what is worth less."""
    limit = system.staging_limit
    others = alive.usage(without=frozenset(map(id, pieces)))
    evicted = [piece for piece in pieces if _peak(others, piece) + piece.size > limit]
    hopeless = frozenset(map(id, evicted))
    possible = alive.usage(without=hopeless)
    rivals = [piece for piece in pieces if id(piece) not in hopeless and _peak(possible, piece) > limit]
    settled = alive.usage(without=hopeless | set(map(id, rivals)))
    by_op = {id(step.op): step for step in steps}
    for group in _groups(rivals):
        chosen = best_subset(group, settled, possible, limit, [_worth(piece, by_op, system) for piece in group])
        for piece, stays in zip(group, chosen, strict=True):
            if stays:
                _add(settled, piece, piece.size)
            else:
                evicted.append(piece)
                _add(possible, piece, -piece.size)
    return evicted


def _groups(rivals: Sequence[Range]) -> list[list[Range]]:
    """Runs of ranges of which each overlaps with those before it."""
    groups: list[list[Range]] = []
    end = -1
    for piece in rivals:
        if groups and piece.first <= end and len(groups[-1]) <= GROUP:
            groups[-1].append(piece)
            end = max(end, piece.last)
        else:
            groups.append([piece])
            end = piece.last
    return groups


def best_subset(
    group: Sequence[Range], base: list[int], most: list[int], limit: int, worth: Sequence[int]
) -> list[bool]:
    """The subset that fits and is worth most; of equal ones the one that keeps the earliest piece in which they differ.

    A sweep over time: two choices of which the same pieces are still alive can go on in the same ways, so that only the
    better is followed; nor is one that could not catch up with keeping whatever fits, piece by piece.

    Args:
        group: pieces that compete.
        base: bytes in use at each tick without them.
        most: bytes in use at each tick with all of them.
        limit: bytes.
        worth: of each piece, not negative.
    """
    order = sorted(range(len(group)), key=lambda position: group[position].first)
    bit = [
        1 << (len(group) - 1 - position) for position in range(len(group))
    ]  # the earlier kept, the larger the number
    reachable = _greedy(group, base, limit, worth, order)
    kept, score = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    used = np.array([base], dtype=np.int64)  # choices x ticks
    rest = sum(worth)
    for done, position in enumerate(order):
        piece = group[position]
        rest -= worth[position]
        fits = used[:, piece.first : piece.last + 1].max(axis=1) + piece.size <= limit
        free = _peak(most, piece) <= limit
        without, with_it = np.flatnonzero(~fits | (not free)), np.flatnonzero(fits)
        parent = np.concatenate([without, with_it])
        taken = np.arange(len(parent)) >= len(without)
        kept, score = kept[parent] + taken * bit[position], score[parent] + taken * worth[position]
        living = sum(bit[other] for other in order[: done + 1] if group[other].last >= _next_first(group, order, done))
        ranked = np.lexsort((kept, score, kept & living))
        alike = kept[ranked] & living
        last = np.append(alike[1:] != alike[:-1], True)  # the best of those that go on alike
        ranked = ranked[last & (score[ranked] + rest >= reachable)]
        used = used[parent[ranked]]
        used[:, piece.first : piece.last + 1] += (taken[ranked] * piece.size)[:, None]
        kept, score = kept[ranked], score[ranked]
    best = int(kept[np.lexsort((kept, score))[-1]])
    return [bool(best & each) for each in bit]


def _next_first(group: Sequence[Range], order: Sequence[int], done: int) -> int:
    """The tick from which on pieces are still to be decided about; past all pieces behind the last."""
    if done + 1 < len(order):
        return group[order[done + 1]].first
    return max(piece.last for piece in group) + 1


def _greedy(group: Sequence[Range], base: list[int], limit: int, worth: Sequence[int], order: Sequence[int]) -> int:
    """What keeping whatever fits is worth, the most valuable first or the earliest first."""
    totals = []
    for sequence in (order, sorted(order, key=lambda position: -worth[position])):
        used, total = list(base), 0
        for position in sequence:
            if _peak(used, group[position]) + group[position].size <= limit:
                _add(used, group[position], group[position].size)
                total += worth[position]
        totals.append(total)
    return max(totals)


def _worth(piece: Range, by_op: Mapping[int, Step], system: System) -> int:
    """Elements read and written through the feature maps of a range.

    On U85 the compiler leaves out what is written behind an activation.
    """
    u85 = system.configuration.is_u85
    total = 0
    for tensor in piece.tensors:
        for op in tensor.consumers:
            step = by_op[id(op)]
            if step.reads_rolling:
                return PRICELESS
            total += step.access.reads[op.read.index(tensor)]
        total += sum(by_op[id(op)].access.write for op in tensor.producers if not (u85 and op.last.activation))
    return total


def _with_partners(steps: Sequence[Step], kept: set[int], rolling: dict[int, int]) -> set[int]:
    """Operands of elementwise work lie all on chip or all off it."""
    for step in steps:
        if step.reads_rolling:
            continue
        outside = [tensor for tensor in step.op.read if id(tensor) not in kept and id(tensor) not in rolling]
        if outside:
            kept -= {id(tensor) for tensor in step.op.read if _only_elementwise(tensor)}
    return kept


def _only_elementwise(tensor: FeatureMap) -> bool:
    return all(_reads_elementwise(op, tensor) for op in tensor.consumers)


def _reads_elementwise(op: NpuOp, tensor: FeatureMap) -> bool:
    return op.kind is OpKind.ELEMENTWISE or not any(tensor is other for other in op.inputs)


def _peak(usage: Sequence[int], piece: Range) -> int:
    return max(usage[piece.first : piece.last + 1])


def _add(usage: list[int], piece: Range, size: int) -> None:
    for tick in range(piece.first, piece.last + 1):
        usage[tick] += size
