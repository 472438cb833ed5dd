"""Batch norms meet the statistics of the quantized network, not of the float one.

What a batch norm was trained on has mean μ and deviation σ; what it gets from a quantized network has `μ_q, σ_q`, and
each norm behind it sees the difference. Both are measured on the same samples, so that a few do, one norm after the
other, each behind those already done (the "re-normalization" of He and Cheng 2018, Learning Compression from Limited
Unlabeled Data, for networks whose norms may be folded):

    norm that stays    v' = (v + ε) σ_q² / σ² - ε,      m' = μ_q - (μ - m) sqrt((v' + ε) / (v + ε))
    norm in a layer    r = σ / σ_q,   s' = r s,         b' = μ - r (μ_q - b)

with s the scales of the layer's weights: the codes stay what they are. That needs a scale for each channel in any
number; other layers have their bias moved alone (r = 1). How much is real and how much is chance is tried on samples
that were not used: two halves, each measured on the one and tried on the other, and a channel changes only where that
leaves less of the squared difference from the float network.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel, call
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import CONVOLUTIONS, Node, TensorRef
from bitwright.quant.preparations.between import ceiling_of, has_own_bias
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct.walk import Walk, incoming_states
from bitwright.quant.scheme import Granularity, QuantScheme, ScaleKind

POSITIONS = 64  # of one sample
_SILENCE = 1e-30
_UNBOUNDED = (-math.inf, math.inf)


@dataclass
class Seen:
    """Some positions of some samples, and what an activation behind them lets through.

    Attributes:
        bounds: of the activation.
        y: values in float, one `[C, n]` a sample.
        z: in the quantized network, likewise.
        shares: how much each position of a sample counts.
    """

    bounds: tuple[float, float]
    y: list[torch.Tensor] = field(default_factory=list)
    z: list[torch.Tensor] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, y: torch.Tensor, z: torch.Tensor) -> None:
        """Keeps evenly spaced positions of a sample, `[C, n]` each; it counts by the inverse of its error."""
        step = -(-y.shape[1] // POSITIONS)
        self.y.append(y[:, ::step].double())
        self.z.append(z[:, ::step].double())
        self.shares.append(1.0 / max(float(self.lacking(self.y[-1], self.z[-1]).square().mean()), _SILENCE))

    def lacking(self, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """What is missing behind the activation."""
        return y.clamp(*self.bounds) - z.clamp(*self.bounds)

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.bounds, self.y + other.y, self.z + other.z, self.shares + other.shares)

    @property
    def weights(self) -> torch.Tensor:
        """Of each position, `[n]`; their sum is 1."""
        counts = torch.tensor([each.shape[1] for each in self.y])
        weights = torch.tensor(self.shares, dtype=torch.float64).repeat_interleave(counts)
        return weights / weights.sum()

    def fitted(self, *, scales: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """`r` and `t`, `[C]`, with which `r z + t` has y's mean and, where asked, its deviation."""
        y, z, weights = torch.cat(self.y, 1), torch.cat(self.z, 1), self.weights
        means, deviations = zip(*(_moments(each, weights) for each in (y, z)), strict=True)
        known = (deviations[0] > 0) & (deviations[1] > 0)
        r = torch.where(known, deviations[0] / deviations[1], 1.0) if scales else torch.ones_like(means[0])
        return r, means[0] - r * means[1]

    def error(self, r: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The mean square of what is missing with them, `[C]`."""
        y, z = torch.cat(self.y, 1), torch.cat(self.z, 1)
        return self.lacking(y, r[:, None] * z + t[:, None]).square() @ self.weights


def _moments(values: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation, `[C]` each."""
    mean = values @ weights
    return mean, ((values - mean[:, None]).square() @ weights).sqrt()


def held(first: Seen, second: Seen, *, scales: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """`r` and `t` of all samples where those of one half do better on the other than none, else 1 and 0."""
    r, t = (first + second).fitted(scales=scales)
    one, zero = torch.ones_like(r), torch.zeros_like(t)
    if not second.y:  # one sample alone: nothing to try on
        return one, zero
    tried = second.error(*first.fitted(scales=scales)) + first.error(*second.fitted(scales=scales))
    better = tried < first.error(one, zero) + second.error(one, zero)
    return torch.where(better, r, one), torch.where(better, t, zero)


class ReestimateNorms:
    """Leaves the float network alone and goes through the quantized one."""

    name = "reestimate_norms"
    samples = 64

    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """Nothing yet."""
        return captured

    @torch.no_grad()
    def finish(self, quantized: QuantizedModel, truth: CapturedModel, samples: Sequence[Arguments]) -> QuantizedModel:
        """See the module."""
        return _Passage(quantized, truth, samples).run()


class _Passage:
    """A float and a quantized walk side by side, the second one behind what was already measured anew."""

    def __init__(self, quantized: QuantizedModel, truth: CapturedModel, samples: Sequence[Arguments]) -> None:
        self.float, self.quantized = truth, quantized
        self.places = {node.name: place for place, (node, _) in enumerate(self.float.steps)}
        states = incoming_states(self.float, samples)
        self.truth = Walk(self.float, samples, states=states)
        self.walk = Walk(
            self.float,
            samples,
            transform=lambda ref, tensor: self.quantized.transform(ref, tensor),
            operands=self._operands,
            states=states,
        )
        self.own = {name: dict(each) for name, each in quantized.simulated_operands.items()}

    def _operands(self, name: str) -> dict[str, torch.Tensor]:
        return self.own.get(name, {})

    def run(self) -> QuantizedModel:
        for node in self.float.graph.nodes:
            if self._is_norm(node) or self._is_layer(node):
                self._measure(node)
        return self.quantized

    def _is_norm(self, node: Node) -> bool:
        statistics = node.inputs[3:5] if node.op == "batch_norm" else ()
        return len(statistics) == 2 and all(ref in self.float.value_refs for ref in statistics)

    def _is_layer(self, node: Node) -> bool:
        """A layer in low precision that has taken a norm up, or could have."""
        graph, decided = self.float.graph, self.quantized.plan
        known = node.op in CONVOLUTIONS and node.name in decided.quantized and node.inputs[1] in decided.weights
        return known and has_own_bias(graph, node)

    def _measure(self, node: Node) -> None:
        fx_node = next(each for each, _ in self.float.steps if each.name == node.name)
        place, seen = self.places[node.name], fx_node if self._is_layer(node) else fx_node.all_input_nodes[0]
        bounds = _bounds(self.quantized, node) if seen is fx_node else _UNBOUNDED
        halves = (Seen(bounds), Seen(bounds))
        behind = place + 1 if seen is fx_node else place
        pairs = zip(self.truth.advance(behind), self.walk.advance(place), strict=True)
        for sample, (wanted, given) in enumerate(pairs):
            local = ChainMap({}, given)
            if seen is fx_node:
                call(fx_node, local, lambda _, tensor: tensor, self._operands(node.name))
            y, z = (held_by[seen].transpose(0, 1).flatten(1) for held_by in (wanted, local))
            halves[sample % 2].add(y, z)
        if seen is fx_node:
            self._change_layer(node, halves)
        else:
            self._change_norm(node, halves)

    def _change_layer(self, node: Node, halves: tuple[Seen, Seen]) -> None:
        names, values = self.float.value_refs, dict(self.quantized.captured.values)
        weight, bias = node.tensors[1:3]
        qparams = dict(self.quantized.qparams)
        spec = qparams[weight].spec
        scales = spec.granularity is Granularity.PER_CHANNEL and spec.scale_kind is ScaleKind.FLOAT32
        r, t = held(*halves, scales=scales)
        values[names[bias]] = (r * values[names[bias]] + t).to(values[names[bias]].dtype)
        if scales:
            rows = r.reshape(-1, *[1] * (values[names[weight]].dim() - 1))
            values[names[weight]] = (values[names[weight]] * rows).to(values[names[weight]].dtype)
            qparams[weight] = replace(qparams[weight], scale=(qparams[weight].scale * r).float())
        self._take(node, values, qparams)

    def _change_norm(self, node: Node, halves: tuple[Seen, Seen]) -> None:
        """`(z - m') / sqrt(v' + ε)` is to be `(r z + t - m) / sqrt(v + ε)`."""
        names, values = self.float.value_refs, dict(self.quantized.captured.values)
        mean, variance = (names[ref] for ref in node.inputs[3:5] if ref is not None)
        epsilon = float(node.attributes.get("eps", 1e-5))
        r, t = held(*halves, scales=True)
        values[variance] = ((values[variance].double() + epsilon) / r.square() - epsilon).to(values[variance].dtype)
        values[mean] = ((values[mean].double() - t) / r).to(values[mean].dtype)
        self._take(node, values, dict(self.quantized.qparams))
        self.own.setdefault(node.name, {}).update({name: values[name] for name in (mean, variance)})

    def _take(self, node: Node, values: dict[str, torch.Tensor], qparams: dict[TensorRef, QParams]) -> None:
        """Goes on with these parameters and scales."""
        captured = replace(self.quantized.captured, values=values)
        self.quantized = replace(self.quantized, captured=captured, qparams=qparams)
        decided, names = self.quantized.plan, captured.value_refs
        if node.name not in decided.quantized:
            return
        own = {names[ref]: fake_quantize(values[names[ref]], qparams[ref]) for ref in node.tensors[1:2]}
        bias = decided.biases.get(node.name)
        if bias is not None:
            own[names[bias.bias]] = fake_quantize(values[names[bias.bias]], self.quantized.bias_qparams(bias))
        else:
            own[names[node.tensors[2]]] = values[names[node.tensors[2]]]
        self.own[node.name] = own


def _bounds(quantized: QuantizedModel, node: Node) -> tuple[float, float]:
    """What the activation behind a layer lets through."""
    follower = quantized.captured.graph.sole_consumer(node.outputs[0])
    ceiling = None if follower is None else ceiling_of(follower)
    return _UNBOUNDED if ceiling is None else (0.0, ceiling)


PREPARATION = ReestimateNorms()
