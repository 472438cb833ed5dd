"""Removes the mean error that rounding the weights leaves in each layer's result (Nagel et al. 2019, section 4.2).

A layer is linear in its input, so the mean of `(W - W_q) x` over the data is `(W - W_q) E[x]`, padding included: the
mean input of each layer is all that has to be kept. The error that arrives from earlier layers is left out on purpose:
its mean over a few samples is mostly noise (on MobileNetV2 with 16 samples, correcting it too costs 5 dB; leaving it
out gains 1 dB).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch
import torch.fx

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.graph import LAYERS, Node, TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.plan import QuantPlan
from bitwright.quant.quantized_model import QuantizedModel


class MeanInputs:
    """The mean input of each layer that can be corrected, summed up while calibration or another run passes by.

    Args:
        captured: the network in float.
        decided: says which of its layers are quantized.

    Attributes:
        refs: the inputs.
    """

    refs: Collection[TensorRef]

    def __init__(self, captured: CapturedModel, decided: QuantPlan) -> None:
        self.refs = {node.tensors[0] for node in _correctable(captured, decided)}
        self._sums: dict[TensorRef, torch.Tensor] = {}
        self._count = 0

    @classmethod
    def of_samples(cls, captured: CapturedModel, decided: QuantPlan, samples: Iterable[Arguments]) -> MeanInputs:
        """Of arguments of `forward` at the captured batch size."""
        found = cls(captured, decided)
        running, state = ready_to_run(captured, found.refs), captured.initial_state()
        for piece, args in enumerate(samples):
            running.run(*args, state=state, transform=found.beside(piece, lambda ref, tensor: tensor))
        return found

    def beside(self, piece: int, observe: Transform) -> Transform:
        """As `Onlooker.beside`."""
        self._count = piece + 1

        def add(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
            if ref in self._sums:
                self._sums[ref] += tensor
            elif ref in self.refs:
                self._sums[ref] = tensor.clone()
            return observe(ref, tensor)

        return add

    def mean(self, ref: TensorRef) -> torch.Tensor:
        """Of one input, in its own shape."""
        return self._sums[ref] / self._count


def correct_biases(quantized: QuantizedModel, samples: Iterable[Arguments]) -> QuantizedModel:
    """Returns the network with corrected biases; layers without a bias of their own stay as they are.

    Args:
        quantized: the network after calibration.
        samples: arguments of `forward` at the captured batch size.
    """
    return corrected(quantized, MeanInputs.of_samples(quantized.captured, quantized.plan, samples))


def corrected(quantized: QuantizedModel, inputs: MeanInputs) -> QuantizedModel:
    """As `correct_biases`, with mean inputs that have been seen already."""
    captured = quantized.captured
    lost = {name: captured.values[name] - rounded for name, rounded in quantized.simulated_values.items()}
    return replace(quantized, captured=compensated(captured, quantized.plan, lost, inputs))


@torch.no_grad()
def compensated(
    captured: CapturedModel, decided: QuantPlan, lost: Mapping[str, torch.Tensor], inputs: MeanInputs
) -> CapturedModel:
    """The network with what its weights lose on the mean in the biases.

    Args:
        captured: the network; its weights stay as they are.
        decided: says which layers are quantized.
        lost: `W - W_q` of weights, by the placeholder's name.
        inputs: of the network's layers.
    """
    layers = [node for node in _correctable(captured, decided) if captured.value_refs[node.tensors[1]] in lost]
    values = dict(captured.values)
    fx_nodes = {node.name: node for node in captured.fx_graph.nodes}
    for node in layers:
        data_ref, weight_ref, bias_ref = node.tensors
        error, bias = lost[captured.value_refs[weight_ref]], captured.value_refs[bias_ref]
        fx_node = fx_nodes[node.name]
        result = fx_node.target(inputs.mean(data_ref), error, None, *fx_node.args[3:])
        channel_axis = 1 - error.dim()  # the last one of linear, the one before the spatial ones of convolutions
        delta = result.movedim(channel_axis, 0).flatten(1).mean(1)
        values[bias] = captured.values[bias] + delta.to(captured.values[bias].dtype)
    return replace(captured, values=values)


def _correctable(captured: CapturedModel, decided: QuantPlan) -> list[Node]:
    """Layers whose weight is quantized and whose bias is a constant of their own."""
    graph, names = captured.graph, captured.value_refs
    return [
        node
        for node in graph.nodes
        if node.op in LAYERS
        and node.name in decided.quantized
        and len(node.tensors) == 3
        and node.tensors[1] in decided.weights
        and node.tensors[1] in names
        and node.tensors[2] in names
        and len(graph.consumers[node.tensors[2]]) == 1
    ]
