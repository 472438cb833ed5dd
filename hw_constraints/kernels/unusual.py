"""Shapes beside the usual ones: what networks of cars, robots and sound have, and blocks of 3 x 3 do not.

Long and rectangular windows, groups whose channels fill no vector, pictures of one to three channels, large transposed
windows; axes in any order, repeated ones, and such as lie in the middle of a tensor. Found by what predictions of
published networks were wrong about: each of these runs in another code path of a runtime than its family's usual one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import pairwise

from bitwright.hw_constraints.kernels.axes import is_one_move
from bitwright.hw_constraints.kernels.kernel import Shape
from bitwright.hw_constraints.kernels.random_sizes import RandomSizes

_LENGTHS = (3, 3, 5, 7, 9, 11, 15, 21, 31)
_RECTANGLES = ((2, 3), (3, 2), (3, 5), (5, 3), (3, 7), (7, 3), (2, 5))
_SMALL_SIDES = (4, 5, 6, 8, 10, 12, 16, 20)
_FEWEST, _MOST = 1e2, 1e6  # elements of a tensor with axes in any order


@dataclass(frozen=True, kw_only=True)
class TransposedWindow:
    """What a transposed convolution does to height and width; each a pair.

    Attributes:
        sides: of the window.
        strides: by which it enlarges.
        pads: cut off on each side, after which a picture of n becomes one of n times the stride.
        more: added at the end for that.
    """

    sides: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    more: tuple[int, int]


def window(choice: random.Random) -> tuple[int, int]:
    """Height and width of a window that is not square: three of four are of one row or one column."""
    if choice.random() < 0.25:
        return choice.choice(_RECTANGLES)
    length = choice.choice(_LENGTHS)
    return (1, length) if choice.random() < 0.5 else (length, 1)


def transposed_window(choice: random.Random) -> TransposedWindow:
    """Windows up to 9 x 9 that enlarge by up to 4, some along one axis alone."""
    pairs = [_enlarged(choice) for _ in range(2)]
    if choice.random() < 0.5:
        pairs = [pairs[0]] * 2
    elif choice.random() < 0.5:
        pairs[choice.randrange(2)] = (1, 1, 0, 0)
    sides, strides, pads, more = zip(*pairs, strict=True)
    return TransposedWindow(sides=sides, strides=strides, pads=pads, more=more)


def _enlarged(choice: random.Random) -> tuple[int, int, int, int]:
    stride = choice.choice([1, 2, 2, 3, 4])
    side = choice.randint(max(2, stride), 9) if stride > 1 else choice.choice([3, 5, 7, 9])
    pad = (side - stride + 1) // 2
    return side, stride, pad, 2 * pad - (side - stride)  # (n - 1) stride - 2 pad + side + more = n stride


def any_shape(choice: random.Random, ranks: tuple[int, ...] = (3, 4, 4, 4, 5)) -> Shape:
    """[1, …] of small sides, not too few elements and not too many."""
    while True:
        sides = (choice.choice(_SMALL_SIDES) * choice.choice([1, 1, 1, 2, 4]) for _ in range(choice.choice(ranks) - 1))
        shape = (1, *sides)
        if _FEWEST <= math.prod(shape) <= _MOST:
            return shape


def turned(choice: random.Random) -> tuple[Shape, tuple[int, ...]]:
    """A tensor and another order of its axes, of which those longer than 1 move; in half of all several of them."""
    shape, several = any_shape(choice, (4, 4, 5)), choice.random() < 0.5
    order = list(range(len(shape)))
    while (moved := [axis for axis in order if shape[axis] > 1]) == sorted(moved) or (several and is_one_move(moved)):
        choice.shuffle(order)
    return shape, tuple(order)


def repeated(choice: random.Random) -> tuple[Shape, Shape]:
    """A tensor and one that repeats some of its axes, not all; in half of all such between which others lie."""
    between = choice.random() < 0.5
    shape = any_shape(choice, (4, 4, 5) if between else (3, 4, 4, 5))
    while True:
        repeats = [choice.random() < 0.5 for _ in shape[1:]]
        turns = sum(one != other for one, other in pairwise(repeats))
        if turns > between:  # no turn: all of them, or none
            return shape, (1, *(1 if each else side for each, side in zip(repeats, shape[1:], strict=True)))


def inner_axis(choice: random.Random) -> tuple[Shape, int]:
    """A tensor and one of its axes that is not the last one and longer than 1."""
    shape = any_shape(choice)
    return shape, choice.randrange(1, len(shape) - 1)


def few_channels(sizes: RandomSizes, fewest: int) -> tuple[Shape, int]:
    """A picture and channels out of it: `fewest` to three on one side or on both."""
    picture = sizes.picture()
    few_in, few_out = (sizes.random.randint(fewest, 3) for _ in range(2))
    into, out = sizes.random.choice([(few_in, sizes.channels()), (picture[1], few_out), (few_in, few_out)])
    return (1, into, *picture[2:]), out
