"""A quantized network in integers: each layer from the codes of its operands to the codes of its result.

`IntegerLayers` is a transform for `QuantizedModel.run`: where the simulation has a real value that it would round now,
the layer is computed again as the device computes it, and its readers see that. What the device computes in floating
point is left to the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from bitwright.quant.fake_quantize import quantize
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.integer.codes import Array, Grid
from bitwright.quant.integer.rules import MLAS, RULES, Arithmetic, Call
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel


def grid_of(qparams: QParams) -> Grid:
    """The same grid in NumPy."""
    fmt = qparams.spec.format
    assert isinstance(fmt, IntFormat)
    zero_point = int(qparams.zero_point.flatten()[0])
    return Grid(format=fmt, scale=qparams.scale.numpy(), zero_point=zero_point, narrow_range=qparams.spec.narrow_range)


@dataclass(kw_only=True)
class IntegerLayers:
    """The transform.

    Attributes:
        quantized: the network; integer formats.
        arithmetic: the device's.
        codes: of every quantized tensor that this run has come to, int64.
        computed: the results that integer arithmetic gave, by the name of the rule.
    """

    quantized: QuantizedModel
    arithmetic: Arithmetic = MLAS
    codes: dict[TensorRef, Array] = field(default_factory=dict)
    computed: dict[TensorRef, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph, fused = self.quantized.captured.graph, self.quantized.plan.fused
        chains = {chain[-1]: chain for chain in fused}
        inner = {name for chain in fused for name in chain}
        self._chains = {
            node.outputs[0]: tuple(graph.by_name[name] for name in chains.get(node.name, (node.name,)))
            for node in graph.nodes
            if node.name in self.quantized.plan.quantized and (node.name not in inner or node.name in chains)
        }

    def __call__(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        """What the readers of a tensor see."""
        qparams = self.quantized.qparams.get(ref)
        if qparams is None or not isinstance(qparams.spec.format, IntFormat):
            return self.quantized.transform(ref, tensor)
        grid = grid_of(qparams)
        found = self._computed(ref, grid)
        codes = quantize(tensor, qparams).numpy().astype(np.int64) if found is None else found
        self.codes[ref] = codes
        return torch.from_numpy(grid.real(codes))

    def _computed(self, ref: TensorRef, grid: Grid) -> Array | None:
        """The layer's codes by the device's rule; None where it has none, or an operand is not in codes."""
        chain = self._chains.get(ref)
        rule = None if chain is None else self.arithmetic.own.get(chain[0].op, RULES.get(chain[0].op))
        if chain is None or rule is None:
            return None
        operands = [self._operand(chain[0], operand) for operand in chain[0].inputs if operand is not None]
        bias = self._bias(chain[0])
        known = [each for each in operands[: 2 if bias is not None else None] if each is not None]
        bounded = _bounded(grid, chain[1:])
        if bounded is None or len(known) != len(operands) - (bias is not None):
            return None
        codes = rule(Call(chain[0], known, bias, bounded, self.arithmetic))
        if codes is not None:
            self.computed[ref] = chain[0].op
        return codes

    def _operand(self, reader: Node, ref: TensorRef) -> tuple[Array, Grid] | None:
        if ref in self.codes:
            return self.codes[ref], grid_of(self.quantized.qparams[ref])
        if ref not in self.quantized.plan.weights or reader.name not in self.quantized.plan.quantized:
            return None
        qparams, captured = self.quantized.qparams[ref], self.quantized.captured
        one_zero = bool((qparams.zero_point == qparams.zero_point.flatten()[0]).all())
        if not isinstance(qparams.spec.format, IntFormat) or qparams.spec.block_size or not one_zero:
            return None
        return quantize(captured.values[captured.value_refs[ref]], qparams).numpy(), grid_of(qparams)

    def _bias(self, node: Node) -> Array | None:
        bias = self.quantized.plan.biases.get(node.name)
        if bias is None:
            return None
        captured = self.quantized.captured
        values = captured.values[captured.value_refs[bias.bias]]
        return quantize(values, self.quantized.bias_qparams(bias)).numpy()


def _bounded(grid: Grid, followers: tuple[Node, ...]) -> Grid | None:
    """The result's grid with the codes that the fused activations leave; None where one is no clamp."""
    bounds: Mapping[str, tuple[float, float]] = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
    low, high = -np.inf, np.inf
    for node in followers:
        if node.op == "hardtanh":
            own = float(node.attributes["min_val"]), float(node.attributes["max_val"])
        elif node.op in bounds:
            own = bounds[node.op]
        else:
            return None
        low, high = max(low, own[0]), min(high, own[1])
    return grid.within(low, high)
