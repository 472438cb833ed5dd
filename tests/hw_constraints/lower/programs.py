"""Networks and targets for tests of the lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bitwright.hw_constraints.lower.interpret import interpret
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.lower.program import LoweredGraph
from bitwright.hw_constraints.quantity import Dimension, Quantity
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph, TensorRef


def with_sram(name: str, size: int, **changes: Any) -> Target:
    """A target whose memory beside the engines has another size."""
    target = load_target(name)
    sram = target.memories["sram"]
    quantity = Quantity(float(size), Dimension.SIZE, f"{size} B")
    figures = {**sram.figures, "size": replace(sram.figures["size"], quantity=quantity)}
    return replace(target, memories={**target.memories, "sram": replace(sram, figures=figures)}, **changes)


class Random:
    """Random codes of constants and inputs, the same for the same seed."""

    def __init__(
        self, lowered: LoweredGraph, seed: int = 0, known: Mapping[TensorRef, np.ndarray] | None = None
    ) -> None:
        self.program = lowered.program
        self.generator = np.random.default_rng(seed)
        self.known: dict[TensorRef, np.ndarray] = dict(known or {})

    def __call__(self, ref: TensorRef) -> np.ndarray:
        if ref not in self.known:
            shape = tuple(size or 0 for size in self.program.graph.tensors[ref].shape)
            bits = self.program.bits(ref)
            top, kind = {8: (127, np.int8), 16: (32767, np.int16)}.get(bits, (3000, np.int32))
            self.known[ref] = self.generator.integers(-top, top + 1, shape).astype(kind)
        return self.known[ref]

    def inputs(self) -> dict[TensorRef, np.ndarray]:
        return {ref: self(ref) for ref in self.program.graph.inputs}


def both(
    graph: Graph,
    target: Target,
    reference: Callable[..., Any],
    seed: int = 0,
    *,
    known: Mapping[TensorRef, np.ndarray] | None = None,
    zero_points: bool = False,
) -> tuple[LoweredGraph, dict[TensorRef, np.ndarray], dict[TensorRef, np.ndarray]]:
    """The program, its results tile by tile, and those of the network as a whole.

    `known` are codes that are not random, `zero_points` whether activations have codes of zero other than 0.
    """
    lowered = lower(graph, target)
    random = Random(lowered, seed, known)
    whole = reference(lowered.program, random, zero_points=zero_points)
    wanted = whole.run(random.inputs())
    return lowered, interpret(lowered, random.inputs(), random, whole.scales, whole.zero_points), wanted
