"""Repeated blocks that a network can do without: those that return what they got in another form, at the same size.

A block can be left out when it is residual: its input goes around its layers, and the channels that it returns are the
very ones that it got, so that the layers behind it read the same channels, whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bitwright.quant.channel_graph import ChannelGraph
from bitwright.quant.graph import TensorKind, TensorRef
from bitwright.quant.preserve import preserved


@dataclass(frozen=True, kw_only=True)
class Block:
    """A module that may be left out.

    Attributes:
        path: of the module.
        entry: the tensor that it gets, and that the network goes on with where it is left out.
        exit: the tensor that it returns.
    """

    path: str
    entry: TensorRef
    exit: TensorRef


@dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring blocks of one type and one size.

    Attributes:
        name: of the parent where it has one run, else with the first and last child.
        blocks: those that may be left out, in order.
        leader: how many blocks come before them that stay and belong to them: 1 where the block in front, of the same
            type, changes the size to theirs.
    """

    name: str
    blocks: tuple[Block, ...]
    leader: int

    @property
    def depth(self) -> int:
        """Blocks in the whole run."""
        return self.leader + len(self.blocks)

    def absent(self, depth: int) -> tuple[Block, ...]:
        """Those that are left out at a depth: the last ones, as in once-for-all networks (Cai et al. 2020)."""
        return self.blocks[depth - self.leader :]


def find_runs(model: nn.Module, channels: ChannelGraph, args: tuple[Any, ...]) -> tuple[list[Run], dict[str, str]]:
    """All runs of blocks that may be left out.

    Args:
        model: of the graph.
        channels: of the model.
        args: example arguments of `forward`.

    Returns:
        The runs, and why neighbours of one type are none: by path.
    """
    calls = _calls(model, args)
    runs: list[Run] = []
    refused: dict[str, str] = {}
    covered: list[str] = []  # modules of runs; what is inside them is no block that anybody would miss
    for parent, module in model.named_modules():
        for siblings in _alike(module):
            paths = [f"{parent}.{name}".lstrip(".") for name in siblings]
            found = [_block(path, calls.get(path, []), channels) for path in paths]
            reasons = {path: each for path, each in zip(paths, found, strict=True) if isinstance(each, str)}
            own = list(_runs(parent, paths, found, channels))
            runs += own
            if own:
                covered += paths
            else:
                refused |= reasons
    outside = {path: why for path, why in refused.items() if not any(path.startswith(f"{each}.") for each in covered)}
    return runs, outside


_Call = tuple[torch.Size | None, torch.Size | None]  # of the first argument and of the result, where these are tensors


def _calls(model: nn.Module, args: tuple[Any, ...]) -> dict[str, list[_Call]]:
    """How each module is called in one forward."""
    calls: dict[str, list[_Call]] = {}

    def shape(value: Any) -> torch.Size | None:
        return value.shape if isinstance(value, torch.Tensor) else None

    def note(path: str, given: tuple[Any, ...], result: Any) -> None:
        calls.setdefault(path, []).append((shape(given[0]) if given else None, shape(result)))

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda _, given, result: note(path, given, result))

    hooks = [watch(path, module) for path, module in model.named_modules()]
    try:
        with preserved(model), torch.no_grad():
            model.eval()(*args)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _alike(parent: nn.Module) -> list[list[str]]:
    """Names of neighbouring children of one type that consist of layers, two and more."""
    groups: list[list[str]] = []
    before: type[nn.Module] | None = None
    for name, child in parent.named_children():
        compound = any(True for _ in child.children()) and any(True for _ in child.parameters())
        if compound and type(child) is before:
            groups[-1].append(name)
        elif compound:
            groups.append([name])
        before = type(child) if compound else None
    return [group for group in groups if len(group) > 1]


def _block(path: str, calls: Sequence[_Call], channels: ChannelGraph) -> Block | str:
    """The block at a path, or why it is none."""
    if len(calls) != 1:
        return f"is called {len(calls)} times in one forward"
    given, returned = calls[0]
    if given is None or returned is None:
        return "does not take a tensor first and return one"
    if given != returned:
        return f"changes the shape {list(given)} to {list(returned)}"
    graph = channels.graph
    inside = [node for node in graph.nodes if f"{node.module_path}.".startswith(f"{path}.")]
    made = {ref for node in inside for ref in node.outputs}
    names = {node.name for node in inside}
    leaving = [
        ref
        for ref in made
        if ref in graph.outputs or any(reader.name not in names for reader in graph.consumers.get(ref, ()))
    ]
    fixed = (TensorKind.PARAMETER, TensorKind.BUFFER, TensorKind.CONSTANT)
    read = dict.fromkeys(ref for node in inside for ref in node.tensors if ref not in made)
    entering = [
        ref for ref in read if graph.tensors[ref].kind not in fixed and tuple(graph.tensors[ref].shape) == tuple(given)
    ]
    if len(leaving) != 1 or len(entering) != 1:
        return f"reads {len(entering)} tensors of its size and hands on {len(leaving)}; of each there has to be one"
    if not _same_channels(channels, entering[0], leaving[0]):
        return "returns channels of its own, so that layers behind it cannot read those in front of it"
    if len({reader.name for reader in graph.consumers[entering[0]]} & names) < 2:
        return "has no way around its layers, so that nothing of it would be left"
    return Block(path=path, entry=entering[0], exit=leaving[0])


def _same_channels(channels: ChannelGraph, left: TensorRef, right: TensorRef) -> bool:
    a, b = channels.strands.get(left, ()), channels.strands.get(right, ())
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _runs(parent: str, paths: Sequence[str], found: Sequence[Block | str], channels: ChannelGraph) -> list[Run]:
    """Neighbours that may be left out, with the one in front of them."""
    runs: list[Run] = []
    begin = 0
    while begin < len(found):
        end = begin
        while end < len(found) and isinstance(found[end], Block) and _one_size(found[begin], found[end], channels):
            end += 1
        blocks = tuple(each for each in found[begin:end] if isinstance(each, Block))
        leader = int(begin > 0 and isinstance(found[begin - 1], str))
        if blocks and len(blocks) + leader > 1:
            first, last = paths[begin - leader], paths[end - 1]
            whole = leader + len(blocks) == len(paths)
            name = parent if whole and parent else f"{first}-{last.rpartition('.')[2]}"
            runs.append(Run(name=name, blocks=blocks, leader=leader))
        begin = max(end, begin + 1)
    return runs


def _one_size(first: Block | str, other: Block | str, channels: ChannelGraph) -> bool:
    if isinstance(first, str) or isinstance(other, str):
        return False
    return channels.graph.tensors[first.entry].shape == channels.graph.tensors[other.entry].shape


def where_absent(runs: Sequence[Run]) -> Mapping[str, tuple[Run, int]]:
    """Of each block's path: its run, and the least depth at which it is there."""
    return {block.path: (run, run.leader + index + 1) for run in runs for index, block in enumerate(run.blocks)}
