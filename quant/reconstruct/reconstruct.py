"""Rounds the weights of a quantized network layer by layer, each with the inputs that it will really get.

One forward of each sample in float says what every layer's result should be (`float_results`); a walk of the quantized
network over all samples, layer after layer, with every layer in front already rounded, says what a layer gets. Time is
one forward of each beside the methods' own; memory does not grow with the data (`walk`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bitwright.quant.calibrate import Arguments, Progress
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.inference import give_back_memory
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct.float_results import FloatResults
from bitwright.quant.reconstruct.gathering import Gathering
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.layers import Layer, find_layers
from bitwright.quant.reconstruct.method import BlockMethod, LayerData, Positions, Rounded, RoundingMethod
from bitwright.quant.reconstruct.moments import HALVES, WIDE, Moments
from bitwright.quant.reconstruct.running import Running
from bitwright.quant.reconstruct.scales import named, with_named
from bitwright.quant.reconstruct.store import ChosenValues, fingerprint
from bitwright.quant.reconstruct.walk import Walk, incoming_states
from bitwright.quant.scheme import ScaleKind


@torch.no_grad()
def reconstruct(
    quantized: QuantizedModel,
    samples: Sequence[Arguments],
    method: RoundingMethod,
    *,
    truth: FloatResults | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Returns the network with weights on their grids and biases that fit them.

    Args:
        quantized: the network after calibration, biases not corrected.
        samples: arguments of `forward` at the captured batch size.
        method: how to round.
        truth: of these samples, where calibration has looked at them already.
        folder: where finished layers are kept until all are, so that a run that was killed goes on behind them.
        progress: called with the number of layers done.
    """
    chosen = ChosenValues(folder / fingerprint(quantized, samples, method.name) if folder is not None else None)
    if isinstance(method, BlockMethod):
        from bitwright.quant.reconstruct.reconstruct_blocks import BlockReconstruction

        result = BlockReconstruction(quantized, samples, method, chosen, truth).run(progress)
    else:
        result = Reconstruction(quantized, samples, method, chosen, truth).run(progress)
    chosen.clear()
    return result


class Reconstruction:
    """The walks and what was chosen so far."""

    def __init__(
        self,
        quantized: QuantizedModel,
        samples: Sequence[Arguments],
        method: RoundingMethod,
        chosen: ChosenValues,
        truth: FloatResults | None = None,
    ) -> None:
        self.quantized = quantized
        self.values = dict(quantized.captured.values)
        self.method = method
        self.chosen = chosen
        captured = quantized.captured
        self.layers, _ = find_layers(captured, quantized.plan, len(samples))
        self.has_wide_layers = any(math.prod(layer.weight_shape[1:]) > WIDE for layer in self.layers)
        self.running = Running(quantized, self.layers)
        rounded = {layer.node.name for layer in self.layers}  # nobody reads them before they are
        self.own = {
            self.running.node(node.name).name: self.running.operands(node.name, quantized.operands_of(node))
            for node in captured.graph.nodes
            if node.name in quantized.plan.quantized and node.name not in rounded and self.running.runs(node.name)
        }
        states = self.states = incoming_states(captured, samples)
        self.truth = truth or FloatResults.of_samples(captured, quantized.plan, samples, states)
        self.rounded = Walk(
            self.running.captured,
            samples,
            transform=lambda ref, tensor: self.quantized.transform(ref, tensor),
            operands=lambda name: self.own.get(name, {}),
            states=states,
            forget=lambda name: self.own.pop(name, None),
        )

    def run(self, progress: Progress | None) -> QuantizedModel:
        """All layers one after the other."""
        self.running.release()
        for done, layer in enumerate(self.layers, start=1):
            found = self.chosen.get(layer.node.name)
            if found is None:
                found = self.values_of(layer, self.round(layer))
                self.chosen.put(layer.node.name, found)
            self.take(layer, found)
            if progress:
                progress(done)
        return self.result()

    def result(self) -> QuantizedModel:
        """The network as chosen so far."""
        return replace(self.quantized, captured=replace(self.quantized.captured, values=dict(self.values)))

    def round(self, layer: Layer) -> Rounded:
        """What the method makes of a layer."""
        return self.method.round(self._data(layer))

    def values_of(self, layer: Layer, rounded: Rounded) -> dict[str, torch.Tensor]:
        """The layer's weight and bias, by their names."""
        values = {layer.weight: rounded.weight.reshape(layer.weight_shape)}
        if layer.bias is not None:
            bias = self.quantized.captured.values[layer.bias]
            values[layer.bias] = (bias.double() + rounded.shift.reshape(bias.shape)).to(bias.dtype)
        if rounded.factors is not None:
            ref = layer.node.tensors[1]
            scale = self.quantized.qparams[ref].scale
            values.update(named({ref: scale * rounded.factors.reshape(scale.shape)}))
        return values

    def take(self, layer: Layer, values: Mapping[str, torch.Tensor]) -> None:
        """Goes on with these parameters of a layer."""
        parameters = {name: values[name] for name in (layer.weight, layer.bias) if name is not None}
        self.quantized = with_named(self.quantized, values)
        self.values.update(parameters)
        self.own[self.running.node(layer.node.name).name] = self._operands(layer, parameters)

    def _data(self, layer: Layer) -> LayerData:
        captured = self.quantized.captured
        node, place = self.running.node(layer.node.name), self.running.place(layer.node.name)
        weight = layer.matrix(captured.values[layer.weight])
        qparams = self.quantized.qparams[layer.node.tensors[1]]
        self._make_room()
        halves = [Moments.empty(*weight.shape, products=self.method.wants_products) for _ in range(HALVES)]
        bias = self._bias(layer, weight)
        positions, most = Positions(), self._positions_a_sample(weight)
        gatherings = [Gathering(weight, bias, layer.bounds, half, positions.shares.__setitem__) for half in halves]
        for sample, given in enumerate(self.rounded.advance(place)):
            columns = layer.columns(given[node.all_input_nodes[0]], sample)
            truth = self.truth.of(layer, sample)
            gatherings[sample % HALVES].add(sample, columns, truth)
            if most:
                positions.add(columns, truth, most)
        for gathering in gatherings:
            gathering.flush()
        self._make_room()
        return LayerData(
            layer=layer,
            weight=weight,
            grid=Grid.of(qparams, captured.values[layer.weight], layer.matrix),
            halves=halves,
            has_bias=layer.bias is not None,
            bias=bias,
            positions=positions if most else None,
            rows_have_scales=qparams.spec.scale_kind is ScaleKind.FLOAT32
            and qparams.spec.block_size is None
            and qparams.scale.shape == (weight.shape[0] * weight.shape[1],),
        )

    def _make_room(self) -> None:
        """Gives back what walking has left behind, where moments and factors take hundreds of megabytes themselves."""
        if self.has_wide_layers:
            give_back_memory()

    def _bias(self, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
        """What the layer adds, `[G, R]`, its own or not."""
        captured, given = self.quantized.captured, layer.node.tensors[2:]
        if not given:
            return torch.zeros(weight.shape[:2])
        return captured.values[captured.value_refs[given[0]]].reshape(weight.shape[:2])

    def _positions_a_sample(self, weight: torch.Tensor) -> int:
        """How many fit into what the method asks for: of each a column and a result, float32."""
        groups, rows, terms = weight.shape
        return self.method.position_bytes // (4 * groups * (rows + terms) * len(self.rounded.samples))

    def _operands(self, layer: Layer, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the rounded layer reads in the simulation."""
        own = dict(values)
        plan = self.quantized.plan.biases.get(layer.node.name)
        if plan is not None and layer.bias is not None:
            own[layer.bias] = fake_quantize(values[layer.bias], self.quantized.bias_qparams(plan))
        return self.running.operands(layer.node.name, own)
