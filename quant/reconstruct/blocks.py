"""Blocks of layers that are best rounded together, found in the graph.

A *cut* is a tensor that alone carries everything from one side of a network to the other: behind it nothing else that
was computed is read. Between two cuts lies a residual block, an inverted residual, an attention or an MLP with its skip
connection: their inner tensors are no cuts, since the skip is alive beside them (the units that BRECQ reconstructs, Li
et al. 2021, section 3.2). Where layers follow each other without a skip each would be a block of its own; those of one
module, which an author put together, are joined if they are few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import TensorRef
from bitwright.quant.reconstruct.layers import Layer

# An inverted residual or a bottleneck has three; a VGG's whole `features` would be one block.
MOST_JOINED = 4


@dataclass(frozen=True, kw_only=True)
class Block:
    """Layers between two cuts.

    Attributes:
        entry: the tensor that it reads.
        exit: the tensor that it makes.
        steps: its operators in `CapturedModel.steps`, first and behind the last.
        layers: those that can be rounded with their inputs in view.
    """

    entry: TensorRef
    exit: TensorRef
    steps: tuple[int, int]
    layers: tuple[Layer, ...]


def find_blocks(captured: CapturedModel, layers: Sequence[Layer]) -> tuple[Block, ...]:
    """The blocks in the order of the network, each with at least one layer.

    Layers in front of the first cut (networks with several inputs) and behind the last are in none.
    """
    by_name = {layer.node.name: layer for layer in layers}
    cuts = _cuts(captured)
    regions: list[Block] = []
    for (start, entry), (last, leaving) in pairwise(cuts):
        inside = tuple(by_name[node.name] for node, _ in captured.steps[start + 1 : last + 1] if node.name in by_name)
        if inside or not regions:
            regions.append(Block(entry=entry, exit=leaving, steps=(start + 1, last + 1), layers=inside))
        else:  # an activation or a pool belongs to the layers in front of it
            regions[-1] = _joined(regions[-1], Block(entry=entry, exit=leaving, steps=(start + 1, last + 1), layers=()))
    owners = _owners(regions)
    blocks: list[Block] = []
    for _, group in groupby(zip(owners, regions, strict=True), key=lambda pair: pair[0]):
        whole, *others = (region for _, region in group)
        for region in others:
            whole = _joined(whole, region)
        blocks.append(whole)
    return tuple(block for block in blocks if block.layers)


def _cuts(captured: CapturedModel) -> list[tuple[int, TensorRef]]:
    """Steps behind which one tensor is alive, and that tensor."""
    alive: set[torch.fx.Node] = set()
    found = []
    for place, (node, dead) in enumerate(captured.steps):
        if node.op != "placeholder" or node.name not in captured.values or node.name in captured.state_names:
            alive.add(node)
        alive.difference_update(dead)
        if alive == {node} and len(node.meta[REF]) == 1 and _inputs_are_read(captured, place):
            found.append((place, node.meta[REF][0]))
    return found


def _inputs_are_read(captured: CapturedModel, place: int) -> bool:
    """Whether all placeholders come before a step."""
    return all(node.op != "placeholder" for node, _ in captured.steps[place + 1 :])


def _owners(regions: Sequence[Block]) -> list[str]:
    """For each region the outermost module whose layers are joined; regions of several layers stay by themselves."""
    inside: dict[str, list[int]] = defaultdict(list)
    for index, region in enumerate(regions):
        for layer in region.layers:
            for module in _modules(layer.node.module_path):
                inside[module].append(index)
    owners = [f"region {index}" for index in range(len(regions))]
    joined: set[int] = set()
    for module, indices in sorted(inside.items(), key=lambda item: len(item[0])):
        few = 1 < len(indices) <= MOST_JOINED and indices == list(range(indices[0], indices[0] + len(indices)))
        if few and joined.isdisjoint(indices):
            joined.update(indices)
            for index in indices:
                owners[index] = module
    return owners


def _modules(path: str) -> list[str]:
    """The modules around a layer, the network itself first."""
    names = path.split(".")
    return [".".join(names[:depth]) for depth in range(len(names))]


def _joined(first: Block, second: Block) -> Block:
    return Block(
        entry=first.entry,
        exit=second.exit,
        steps=(first.steps[0], second.steps[1]),
        layers=(*first.layers, *second.layers),
    )
