"""Which feature maps stay on chip where they would lie off chip otherwise: those whose traffic saves most, that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """What cannot or should not stay."""
    limit = system.staging_limit
    base = alive.usage(without=frozenset(id(piece) for piece in pieces))
    most = alive.usage()
    evicted, rest = [], []
    for piece in pieces:
        if _peak(base, piece) + piece.size > limit:
            evicted.append(piece)
            _add(most, piece, -piece.size)
        else:
            rest.append(piece)
    rivals = []
    for piece in rest:
        if _peak(most, piece) <= limit:
            _add(base, piece, piece.size)
        else:
            rivals.append(piece)
    by_op = {id(step.op): step for step in steps}
    for group in _groups(rivals):
        worth = [_worth(piece, by_op, system) for piece in group]
        chosen = best_subset(group, base, most, limit, worth)
        for piece, stays in zip(group, chosen, strict=True):
            if stays:
                _add(base, piece, piece.size)
            else:
                evicted.append(piece)
                _add(most, piece, -piece.size)
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
    """The subset that fits and is worth most; branch and bound, the first of equal ones."""
    best_score, best = -1, [False] * len(group)
    rest = [0] * (len(group) + 1)
    for position in reversed(range(len(group))):
        rest[position] = rest[position + 1] + worth[position]
    current = [False] * len(group)

    def search(position: int, score: int) -> None:
        nonlocal best_score, best
        if score + rest[position] <= best_score:
            return
        if position == len(group):
            best_score, best = score, list(current)
            return
        piece = group[position]
        if _peak(base, piece) + piece.size <= limit:
            current[position] = True
            _add(base, piece, piece.size)
            search(position + 1, score + worth[position])
            _add(base, piece, -piece.size)
        if _peak(most, piece) > limit or not current[position]:
            current[position] = False
            _add(most, piece, -piece.size)
            search(position + 1, score)
            _add(most, piece, piece.size)

    search(0, 0)
    return best


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
