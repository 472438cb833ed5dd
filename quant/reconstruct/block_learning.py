"""Learns the rounding of all weights of a block together, with their biases and the steps of its activations.

    sum over samples of  |B_q(x_q) - B(x)|^2 / e_0  +  lambda sum over layers mean(1 - |2 h(V) - 1|^beta)

is minimized over V (AdaRound's soft rounding, `adaround`), the biases and the activations' scales (LSQ, the function
that training uses: `learned_steps`): BRECQ's block-wise reconstruction (Li et al. 2021, arXiv:2102.05426, section 3).
`B` is the block in float on its float input, `B_q` the quantized one on what the quantized network feeds it, and `e_0`
the error that rounding layer by layer leaves in the sample, so that no loud picture decides for all others.

With `drop`, each element of each activation stays in float with that probability while learning, in the block's input,
too: weights then do not lean on one pattern of activation noise (QDrop, Wei et al. 2022, arXiv:2203.05740).

Every fourth sample is kept out of learning. What was learned is taken only where it leaves less error there than what
rounding layer by layer has found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bitwright.quant.captured_model import Transform, call
from bitwright.quant.formats import IntFormat
from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import TensorRef
from bitwright.quant.learned_scales import learned_scale
from bitwright.quant.learned_steps import Grid as CodeGrid
from bitwright.quant.learned_steps import round_activation, straight_through
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct.adaround import SoftRounding, beta_of, rectified_sigmoid
from bitwright.quant.reconstruct.blocks import Block
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.scales import with_scales
from bitwright.quant.scheme import ScaleKind

# Of the regularizer, in units of the error that is left layer by layer: with 1 half of the weights of a small network
# end in between, with 20 one in a hundred.
STRENGTH = 20.0
RATE, BIAS_RATE, SCALE_RATE = 3e-2, 1e-3, 1e-3  # of V, of biases, of the logarithms of scales
BATCH = 4
HELD_OUT = 4  # every so-many-th sample judges
_SEED = 0
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class BlockData:
    """A block and what was seen around it.

    Attributes:
        block: which.
        quantized: the network, the block's layers already rounded one by one.
        wanted: the weight that each of them was rounded from, by the layer's node, `[G, R, K]`.
        entries: what the quantized network feeds the block, one tensor a sample.
        float_entries: what the float network feeds it.
        exits: what the float network makes of that.
    """

    block: Block
    quantized: QuantizedModel
    wanted: Mapping[str, torch.Tensor]
    entries: Sequence[torch.Tensor]
    float_entries: Sequence[torch.Tensor]
    exits: Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a block's layers and activations became: parameters by name, scales by tensor."""

    values: Mapping[str, torch.Tensor]
    scales: Mapping[TensorRef, torch.Tensor]


class _Layer:
    """One layer's parameters while they are learned."""

    def __init__(self, data: BlockData, layer: Layer) -> None:
        captured = data.quantized.captured
        self.layer = layer
        weight = captured.values[layer.weight]
        self.grid = Grid.of(data.quantized.qparams[layer.node.tensors[1]], weight, layer.matrix)
        chosen = layer.matrix(weight)
        self.soft, start = SoftRounding.around(data.wanted[layer.node.name], chosen, self.grid)
        self.v = start.requires_grad_(True)
        self.bias = None if layer.bias is None else captured.values[layer.bias].clone().requires_grad_(True)

    def soft_values(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Parameters by name, and h."""
        h = rectified_sigmoid(self.v)
        values = {self.layer.weight: self.soft.weight(h).reshape(self.layer.weight_shape)}
        return ({**values, self.layer.bias: self.bias} if self.layer.bias and self.bias is not None else values), h

    def hard_values(self) -> dict[str, torch.Tensor]:
        up = (rectified_sigmoid(self.v.detach()) >= 0.5).to(torch.float32)
        values = {self.layer.weight: self.grid.nearest(self.soft.weight(up)).reshape(self.layer.weight_shape)}
        if self.layer.bias and self.bias is not None:
            values[self.layer.bias] = self.bias.detach()
        return values


class BlockLearning:
    """Learns one block."""

    def __init__(self, data: BlockData, *, drop: float, steps: int) -> None:
        self.data, self.drop, self.steps = data, drop, steps
        captured, (first, behind) = data.quantized.captured, data.block.steps
        self.nodes = captured.steps[first:behind]
        self.entry = next(node for node, _ in captured.steps if data.block.entry in node.meta.get(REF, ()))
        self.exit = self.nodes[-1][0]
        self.parameters = {
            node: captured.values[node.name]
            for node, _ in captured.steps
            if node.op == "placeholder" and node.name in captured.values
        }
        self.generator = torch.Generator().manual_seed(_SEED)
        self.layers = [_Layer(data, layer) for layer in data.block.layers if _is_learned(data, layer)]
        self.ratios = {ref: torch.zeros((), requires_grad=True) for ref in _free_activations(data)}

    def run(self) -> Learned | None:
        """What was learned; None where it is no better than what was there."""
        samples = range(len(self.data.entries))
        judges = [sample for sample in samples if sample % HELD_OUT == HELD_OUT - 1]
        before = self._errors(samples, {}, self.data.quantized.transform)
        if not self.layers or not judges:
            return None
        self._learn([sample for sample in samples if sample not in judges], 1.0 / (before + _TINY))
        values = {name: value for layer in self.layers for name, value in layer.hard_values().items()}
        scales = {ref: self._scale(ref).detach() for ref in self.ratios}
        found = Learned(values=values, scales=scales)
        after = self._errors(judges, values, with_scales(self.data.quantized, scales).transform)
        return found if float((after / (before[judges] + _TINY)).log().mean()) < 0 else None

    def _learn(self, samples: Sequence[int], shares: torch.Tensor) -> None:
        groups = [
            {"params": [layer.v for layer in self.layers], "lr": RATE},
            {"params": [layer.bias for layer in self.layers if layer.bias is not None], "lr": BIAS_RATE},
            {"params": list(self.ratios.values()), "lr": SCALE_RATE},
        ]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        with torch.enable_grad():
            for step in range(self.steps):
                picks = torch.randint(len(samples), (BATCH,), generator=self.generator)
                beta = beta_of(step / self.steps)
                values: dict[str, torch.Tensor] = {}
                loss = torch.zeros(())
                for layer in self.layers:
                    own, h = layer.soft_values()
                    values.update(own)
                    if beta is not None:
                        loss = loss + STRENGTH * (1.0 - (2.0 * h - 1.0).abs().pow(beta)).mean()
                for sample in (samples[int(pick)] for pick in picks):
                    loss = loss + self._error(sample, values, self._learning, dropping=True) * shares[sample] / BATCH
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _errors(
        self, samples: Sequence[int] | range, values: Mapping[str, torch.Tensor], transform: Transform
    ) -> torch.Tensor:
        with torch.no_grad():
            return torch.stack([self._error(sample, values, transform, dropping=False) for sample in samples])

    def _error(
        self, sample: int, values: Mapping[str, torch.Tensor], transform: Transform, *, dropping: bool
    ) -> torch.Tensor:
        """`|B_q(x_q) - B(x)|^2` of one sample."""
        entry = self.data.entries[sample]
        if dropping and self.drop:
            entry = self._dropped(self.data.float_entries[sample], entry)
        environment = {**self.parameters, self.entry: entry}
        operands = self.data.quantized
        for node, dead in self.nodes:
            own = {**operands.simulated_operands.get(node.name, {}), **values}
            call(node, environment, transform, own)
            for spent in dead:
                if spent not in self.parameters:
                    del environment[spent]
        return (environment[self.exit] - self.data.exits[sample]).square().sum()

    def _learning(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        """The transform while learning: differentiable, with learned scales and dropped rounding."""
        quantized = self.data.quantized
        if ref in self.ratios:
            rounded = round_activation(tensor, self._scale(ref), CodeGrid.of(quantized.qparams[ref]))
        elif ref in quantized.qparams or ref in quantized.dynamic:
            rounded = straight_through(tensor, quantized.transform(ref, tensor.detach()))
        else:
            return tensor
        return self._dropped(tensor, rounded) if self.drop and ref != self.data.block.exit else rounded

    def _dropped(self, exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        keeps = torch.rand(exact.shape, generator=self.generator) < self.drop
        return torch.where(keeps, exact, rounded)

    def _scale(self, ref: TensorRef) -> torch.Tensor:
        start = self.data.quantized.qparams[ref].scale
        return learned_scale(self.ratios[ref], start, rate=1 / start.square())


def _is_learned(data: BlockData, layer: Layer) -> bool:
    """Steps of floats differ from value to value: their weights stay as they were rounded one by one."""
    return isinstance(data.quantized.qparams[layer.node.tensors[1]].spec.format, IntFormat)


def _free_activations(data: BlockData) -> list[TensorRef]:
    """Activations inside the block, its result among them, whose one scale is theirs alone and may be any number."""
    quantized = data.quantized
    tied = {ref for group in quantized.plan.groups for ref in group}
    made = [ref for node, _ in quantized.captured.steps[slice(*data.block.steps)] for ref in node.meta[REF] if ref]
    return [
        ref
        for ref in made
        if ref in quantized.qparams
        and ref in quantized.plan.activations
        and ref not in tied
        and quantized.qparams[ref].scale.dim() == 0
        and quantized.qparams[ref].spec.scale_kind is ScaleKind.FLOAT32
        and isinstance(quantized.qparams[ref].spec.format, IntFormat)
    ]
