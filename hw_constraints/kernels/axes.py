"""Which axes an operator turns, repeats or goes along: what loops of a runtime can be joined hangs on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, takewhile

from bitwright.hw_constraints.kernels.kernel import Family, Kernel


def moves_one_axis(kernel: Kernel) -> bool:
    """Whether a Transpose moves one axis and leaves the order of the others; axes of length 1 do not count.

    ONNX Runtime copies stretches then, and computes each element's place otherwise: [0, 3, 2, 1] of a radar's picture
    took ten times what orders that move one axis had taught.
    """
    order = kernel.attribute("perm")
    shape = kernel.inputs[0]
    if order is None or len(order) != len(shape):
        return False
    return is_one_move([axis for axis in order if shape[axis] > 1])


def is_one_move(order: Sequence[int]) -> bool:
    """Whether different numbers are in order but for one of them at most."""
    rests = ([*order[:at], *order[at + 1 :]] for at in range(len(order)))
    return any(rest == sorted(rest) for rest in rests)


def turns(kernel: Kernel) -> int:
    """How often, along the axes, those that an operand repeats, or a reduction goes along, and others take turns.

    0 for other operators. Once for a number a channel of a picture, [C, 1, 1]; twice for one a channel and column,
    [C, 1, W], for which a loop cannot join rows.
    """
    return sum(one != other for (one, _), (other, _) in pairwise(_marked(kernel)))


def innermost_run(kernel: Kernel) -> int:
    """Elements of the last axes up to the first such turn; 1 for other operators."""
    marked = _marked(kernel)
    same = list(takewhile(lambda axis: axis[0] == marked[-1][0], reversed(marked)))
    return math.prod(size for _, size in same)


def _marked(kernel: Kernel) -> list[tuple[bool, int]]:
    """Of each axis longer than 1: whether an operand repeats it, or a reduction goes along it, and its size."""
    if kernel.op.startswith("Reduce"):
        axes = _reduced_axes(kernel)
        return [(axis in axes, size) for axis, size in enumerate(kernel.inputs[0]) if size > 1]
    result = kernel.outputs[0]
    others = [*kernel.inputs, *([kernel.weight] if kernel.weight else [])]
    other = next((shape for shape in others if math.prod(shape) != math.prod(result)), None)
    if kernel.family is not Family.ELEMENTWISE or other is None:
        return []
    aligned = ((1,) * len(result) + other)[len(other) :]
    return [(have == 1, size) for have, size in zip(aligned, result, strict=True) if size > 1]


def reduced(kernel: Kernel) -> tuple[int, int]:
    """Elements behind the last axis that a reduction goes along, and those that become one."""
    shape, axes = kernel.inputs[0], _reduced_axes(kernel)
    return math.prod(shape[max(axes, default=len(shape)) + 1 :]), math.prod(shape[axis] for axis in axes)


def _reduced_axes(kernel: Kernel) -> set[int]:
    """Which of its input's; all of them where none is named."""
    rank = len(kernel.inputs[0])
    named = kernel.attribute("const:1", kernel.attribute("axes", tuple(range(rank))))
    return {int(axis) % rank for axis in (named if isinstance(named, tuple) else (named,))}
