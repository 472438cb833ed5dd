"""Which input channels stand side by side, so that a pattern of N:M drops less (Pool & Yu 2021).

Exchanging channels changes no result as long as whoever makes them, reads them or adds to them exchanges them too:
units of one group of the dependency graph are exchanged in all their parameters at once. Which order keeps most
magnitude is searched by exchanging two channels at a time, the best exchange first; where none helps, a random one is
made and the search goes on from there (their "bounded regressions"), the best order seen counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.sparsity.in_place import take
from bitwright.qat.sparsity.patterns import Pattern
from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup, channel_graph
from bitwright.quant.errors import InputError
from bitwright.quant.preserve import preserved

Matrix = npt.NDArray[np.float64]
# An exchange that gains less than this share of the whole is rounding.
_LEAST_GAIN = 1e-9
# Sums are added in another order afterwards: 2^12 roundings of the largest result.
_ROUNDINGS = 4096.0


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One group that was put in another order: the share of its readers' magnitude that the pattern keeps."""

    group: str
    before: float
    after: float


def kept_magnitude(matrix: Matrix, n: int, m: int) -> float:
    """The sum of the n largest of each m neighbours: `matrix` is [rows, channels], without signs."""
    groups = np.sort(matrix.reshape(len(matrix), -1, m), axis=-1)
    return float(groups[..., m - n :].sum())


def best_order(matrix: Matrix, n: int, m: int, *, escapes: int = 12, seed: int = 0) -> npt.NDArray[np.int64]:
    """An order of the columns in which N:M keeps more magnitude; never less than the given one.

    Args:
        matrix: magnitudes, [rows, channels]; channels a multiple of m.
        n: stay.
        m: of so many neighbours.
        escapes: how often to go on from a random exchange where none helps.
        seed: of these.
    """
    search = _Exchanges(matrix, n, m)
    generator = np.random.default_rng(seed)
    search.climb()
    best, order = search.kept(), search.order.copy()
    for _ in range(escapes if matrix.shape[1] > m else 0):
        one = int(generator.integers(matrix.shape[1]))
        other = int(generator.choice(np.flatnonzero(np.arange(matrix.shape[1]) // m != one // m)))
        search.exchange(one, other)
        search.climb()
        if search.kept() > best:
            best, order = search.kept(), search.order.copy()
    return order


class _Exchanges:
    """What each exchange of two columns would gain.

    With column i taken from its m neighbours, let b be the sum of the n - 1 largest others and t the n-th: putting x
    there keeps `b + max(t, x)`. So all exchanges need one maximum for each pair of columns and row.
    """

    def __init__(self, matrix: Matrix, n: int, m: int) -> None:
        self.matrix, self.n, self.m = matrix, n, m
        count = matrix.shape[1]
        self.order = np.arange(count)
        self.with_other = np.zeros((count, count))  # [place, column put there]
        self.own = np.zeros(count)  # what the m neighbours of a place keep
        self._look(range(count // m))

    def kept(self) -> float:
        return float(self.own[:: self.m].sum())

    def climb(self) -> None:
        """Makes the best exchange until none helps."""
        least = _LEAST_GAIN * max(self.kept(), np.finfo(float).tiny)
        blocks = np.arange(len(self.order)) // self.m
        apart = blocks[:, None] != blocks[None, :]
        while True:
            placed = self.with_other[:, self.order]
            gains = np.where(apart, placed + placed.T - self.own[:, None] - self.own[None, :], 0.0)
            one, other = divmod(int(gains.argmax()), len(self.order))
            if gains[one, other] <= least:
                return
            self.exchange(one, other)

    def exchange(self, one: int, other: int) -> None:
        """Puts what is at two places into the other's place."""
        self.order[[one, other]] = self.order[[other, one]]
        self._look({one // self.m, other // self.m})

    def _look(self, blocks: Collection[int]) -> None:
        for block in blocks:
            places = range(block * self.m, (block + 1) * self.m)
            columns = self.matrix[:, self.order[places.start : places.stop]]
            self.own[places.start : places.stop] = np.sort(columns, axis=1)[:, self.m - self.n :].sum()
            for index, place in enumerate(places):
                others = np.sort(np.delete(columns, index, axis=1), axis=1)[:, ::-1]
                base, threshold = others[:, : self.n - 1].sum(), others[:, self.n - 1]
                self.with_other[place] = base + np.maximum(threshold[:, None], self.matrix).sum(axis=0)


def permute_channels(
    model: nn.Module,
    args: tuple[Any, ...],
    patterns: Mapping[str, Pattern],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    escapes: int = 12,
) -> tuple[Exchange, ...]:
    """Puts channels of a model in the order in which a pattern keeps most; what the model computes stays.

    Args:
        model: the user's module; changed in place.
        args: example arguments of `forward`.
        patterns: of the weights that will have one, by their paths; N:M decides on the order, and channels that blocks
            of others are made of stay.
        optimizer: what it remembers of the parameters is exchanged alike.
        escapes: see `best_order`.

    Raises:
        InputError: the model computes something else afterwards (it uses an order that it has as a constant); it is as
            it was then.
    """
    channels = channel_graph(capture(model, args).graph)
    with preserved(model), torch.no_grad():
        model.eval()
        before = pytree.tree_leaves(model(*args))
    changes, exchanged = [], []
    for group in channels.groups:
        readers = _readers(channels, group, patterns)
        if readers is None:
            continue
        ordered, paths, pattern = readers
        matrix = np.concatenate([_magnitudes(model, path, places) for path, places in paths])
        order = best_order(matrix, pattern.n, pattern.m, escapes=escapes)
        total = float(matrix.sum()) or 1.0
        old, new = (kept_magnitude(each, pattern.n, pattern.m) / total for each in (matrix, matrix[:, order]))
        if new > old:
            changes.append(take(model, channels.permuted(ordered, order.tolist()), optimizer=optimizer))
            exchanged.append(Exchange(group=group.name, before=old, after=new))
    with preserved(model), torch.no_grad():
        model.eval()
        after = pytree.tree_leaves(model(*args))
    if not all(_same(own, want) for own, want in zip(after, before, strict=True)):
        for change in reversed(changes):
            change.undo()
        raise InputError(
            "the model computes something else when its channels change places: it takes an order of channels from "
            "a constant; leave out the permutation"
        )
    return tuple(exchanged)


def _same(own: Any, want: Any) -> bool:
    if not isinstance(want, torch.Tensor) or not want.is_floating_point():
        return True
    allowed = _ROUNDINGS * torch.finfo(want.dtype).eps * float(want.abs().max())
    return float((own - want).abs().max()) <= allowed


def _readers(
    channels: ChannelGraph, group: ChannelGroup, patterns: Mapping[str, Pattern]
) -> tuple[ChannelGroup, list[tuple[str, npt.NDArray[np.int64]]], Pattern] | None:
    """The group with its units in the order of their places, the weights that sum over them, and the pattern of these.

    None where an exchange would not help: nobody with a pattern N:M reads them, or several with different ones; blocks
    of a weight are made of them; a unit has several places in a weight (a whole head), the weights have them in
    different orders or not in whole groups of m.
    """
    owned = [(ref, axis, patterns[ref.module_path]) for ref, axis in group.axes if ref.module_path in patterns]
    reading = [(ref, axis, pattern) for ref, axis, pattern in owned if axis == 1 and pattern.m]
    in_blocks = any((pattern.rows, pattern.columns)[axis] > 1 for _, axis, pattern in owned if axis < 2)
    if in_blocks or len({pattern for _, _, pattern in reading}) != 1:
        return None
    pattern = reading[0][2]
    m, paths = pattern.m, list[tuple[str, npt.NDArray[np.int64]]]()
    ordered: list[int] = []
    for ref, axis, _ in reading:
        units = channels.units_along(ref, axis)
        assert units is not None
        places = np.flatnonzero(np.isin(units, group.units))
        own = units[places].tolist()
        whole = places[0] % m == 0 and len(places) % m == 0 and places[-1] - places[0] == len(places) - 1
        if not whole or len(set(own)) != len(own) or (ordered and ordered != own):
            return None
        ordered = own
        paths.append((ref.module_path, places))
    return replace(group, units=tuple(ordered)), paths, pattern


def _magnitudes(model: nn.Module, path: str, places: npt.NDArray[np.int64]) -> Matrix:
    """|weight| as [rows, channels]: a row for each output and place of the kernel."""
    weight = model.get_parameter(path).detach().abs().double().cpu().numpy()
    return np.moveaxis(weight, 1, -1).reshape(-1, weight.shape[1])[:, places]
