"""Rounds block by block: first the layers of each one by one, then all of them together.

The quantized walk waits at the block's entry while a fork of it goes through the layers; when the block is learned it
goes on with what was learned. What lies at entry and exit is held for as many samples as fit into `HELD_BYTES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bitwright.quant.calibrate import Arguments, Progress
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct.block_learning import BlockData
from bitwright.quant.reconstruct.blocks import Block, find_blocks
from bitwright.quant.reconstruct.float_results import FloatResults
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.method import BlockMethod
from bitwright.quant.reconstruct.reconstruct import Reconstruction
from bitwright.quant.reconstruct.scales import named, with_named
from bitwright.quant.reconstruct.store import ChosenValues
from bitwright.quant.reconstruct.walk import Walk

HELD_BYTES = 256 << 20  # of one block's entries, in both networks, and exits


class BlockReconstruction(Reconstruction):
    """Blocks where the network has them, lone layers elsewhere."""

    def __init__(
        self,
        quantized: QuantizedModel,
        samples: Sequence[Arguments],
        method: BlockMethod,
        chosen: ChosenValues,
        truth: FloatResults | None = None,
    ) -> None:
        super().__init__(quantized, samples, method, chosen, truth)
        self.block_method = method
        self.float_walk = Walk(self.running.captured, samples, states=self.states)

    def run(self, progress: Progress | None) -> QuantizedModel:
        """See the module."""
        self.running.release()
        captured = self.quantized.captured
        blocks = {
            layer.node.name: block
            for block in find_blocks(captured, self.layers)
            if self.running.has(block.entry) and self.running.has(block.exit)
            for layer in block.layers
        }
        for done, layer in enumerate(self.layers, start=1):
            block = blocks.get(layer.node.name)
            if block is None:
                self._lone(layer)
            elif layer is block.layers[0]:
                self._block(block, captured)
            if progress:
                progress(done)
        return self.result()

    def _lone(self, layer: Layer) -> None:
        found = self.chosen.get(layer.node.name)
        if found is None:
            found = self.values_of(layer, self.round(layer))
            self.chosen.put(layer.node.name, found)
        self.take(layer, found)

    def _block(self, block: Block, captured: CapturedModel) -> None:
        key = f"block of {block.layers[0].node.name}"
        found = self.chosen.get(key)
        if found is None:
            found = self._learned(block, captured)
            self.chosen.put(key, found)
        self.quantized = with_named(self.quantized, found)
        for layer in block.layers:
            self.take(layer, {name: found[name] for name in (layer.weight, layer.bias) if name is not None})

    def _learned(self, block: Block, captured: CapturedModel) -> dict[str, torch.Tensor]:
        held = sum(captured.graph.tensors[ref].elements * 4 for ref in (block.entry, block.entry, block.exit))
        count = min(len(self.rounded.samples), max(1, HELD_BYTES // held))
        waiting = self.rounded
        entries, float_entries = self._at(waiting, block.entry, count), self._at(self.float_walk, block.entry, count)
        self.rounded = waiting.fork()
        found, wanted = {}, {}
        for layer in block.layers:
            rounded = self.round(layer)
            values = self.values_of(layer, rounded)
            self.take(layer, values)
            found.update(values)
            weight = layer.matrix(captured.values[layer.weight])
            wanted[layer.node.name] = weight if rounded.wanted is None else rounded.wanted
        exits = self._at(self.float_walk, block.exit, count)
        self.rounded = waiting
        quantized = replace(self.quantized, captured=replace(captured, values=dict(self.values)))
        learned = self.block_method.round_block(
            BlockData(
                block=block,
                quantized=quantized,
                wanted=wanted,
                entries=entries,
                float_entries=float_entries,
                exits=exits,
            )
        )
        if learned is not None:
            found.update(learned.values)
            found.update(named(learned.scales))
        return found

    def _at(self, walk: Walk, ref: TensorRef, count: int) -> list[torch.Tensor]:
        """A tensor in the first samples; the walk goes up to it."""
        node = self.running.maker(ref)
        return [environment[node] for environment in walk.advance(self.running.place_of(node) + 1, count)]
