"""Operators that only move elements of a tensor, or average them: from which channel each of their elements comes.

It is found by sending the channels' own numbers through these operators; no rule about axes is needed.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from bitwright.quant.fx_nodes import operator_type

_SHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
_PARTS = ("unbind", "split", "split_with_sizes", "chunk", "slice", "select", "narrow")
MOVES = frozenset({*_SHAPES, *_PARTS, "permute", "transpose", "t", "expand", "clone", "contiguous"})
_EDGES = frozenset(f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3))
AVERAGES = frozenset({"mean", *(f"{kind}avg_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3))})


def is_move(node: torch.fx.Node) -> bool:
    """Whether a node only moves elements of one tensor, or takes one of the parts that they were moved into."""
    if node.target is operator.getitem:
        return True
    kind = operator_type(node)
    copies = kind in MOVES | _EDGES or (kind == "pad" and node.args[2:3] not in ((), ("constant",)))
    return copies and len(node.all_input_nodes) == 1


def channel_numbers(shape: Sequence[int], axis: int) -> torch.Tensor:
    """The number of its channel in each element; float64 of that shape. The first is 1, so that 0 is no channel's."""
    numbers = torch.arange(1.0, shape[axis] + 1, dtype=torch.float64)
    spread = [1] * len(shape)
    spread[axis] = -1
    return numbers.reshape(spread).expand(*shape).contiguous()


def moved(node: torch.fx.Node, numbers: Any) -> Any:
    """What a node that `is_move`, or an average, makes of numbers; of several tensors, or one of several."""
    if node.target is operator.getitem:
        return numbers[node.args[1]]
    arguments: Sequence[Any] = node.args[1:]
    target: Any = node.target
    return target(numbers, *arguments, **node.kwargs)


def averaged(node: torch.fx.Node, numbers: torch.Tensor) -> torch.Tensor | None:
    """What an average makes of numbers; None where it mixes channels, or zeros at a border with them.

    The mean of the squares is the square of the mean where all that is averaged is alike.
    """
    mean, of_squares = moved(node, numbers), moved(node, numbers.square())
    alike = torch.allclose(mean.square(), of_squares, rtol=1e-12, atol=0.0)
    whole: torch.Tensor = mean.round()
    return whole if alike else None


def one_for_each(numbers: torch.Tensor, axis: int) -> torch.Tensor | None:
    """The channel, from 0, of each place along an axis, int64 `[size]`; None where a place has several."""
    rows = numbers.movedim(axis, 0).flatten(1)
    found = rows[:, 0].long() - 1
    return found if bool((rows == rows[:, :1]).all()) and bool((found >= 0).all()) else None
