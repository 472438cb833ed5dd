"""The network that the walks run: as `ready_to_run` makes it, and which of its nodes stands for which layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.fx

from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import kernel_weight, ready_to_run
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.walk import without_parameters


class Running:
    """A quantized network with its convolutions in the kernels' form.

    An activation that a layer's bounds speak of may be part of the layer's node; all other results are there.

    Attributes:
        captured: the network, with weights in float.
    """

    def __init__(self, quantized: QuantizedModel, layers: Sequence[Layer]) -> None:
        unbounded = {layer.node.outputs[0] for layer in layers if layer.unbounded}
        self.captured = ready_to_run(quantized.captured, {*quantized.qparams, *quantized.dynamic, *unbounded})
        self._steps = {node.name: node for node, _ in self.captured.steps}
        self._places = {node.name: place for place, (node, _) in enumerate(self.captured.steps)}
        self._makers = {ref: node for node in self._steps.values() for ref in node.meta.get(REF, ()) if ref}
        readers = {_second_argument(node): node for node in self._steps.values()}
        names = quantized.captured.value_refs
        self._nodes = {}
        for node in quantized.captured.graph.nodes:
            weight = names.get(node.tensors[1]) if len(node.tensors) > 1 else None
            found = self._steps.get(node.name) or (readers.get(weight) if weight else None)
            if found is not None:
                self._nodes[node.name] = found

    def release(self) -> None:
        """Leaves parameters to the walks that have begun, which give them up on the way."""
        self.captured = without_parameters(self.captured)

    def runs(self, name: str) -> bool:
        """Whether a node of the captured network is there, and not part of a kernel."""
        return name in self._nodes

    def node(self, name: str) -> torch.fx.Node:
        """What runs a node of the captured network."""
        return self._nodes[name]

    def place(self, name: str) -> int:
        """Where in the steps it runs."""
        return self._places[self._nodes[name].name]

    def has(self, ref: TensorRef) -> bool:
        """Whether a tensor is there, and not inside a kernel."""
        return ref in self._makers

    def maker(self, ref: TensorRef) -> torch.fx.Node:
        """What makes a tensor, or brings it in."""
        return self._makers[ref]

    def place_of(self, node: torch.fx.Node) -> int:
        """Where in the steps a node of the running network stands."""
        return self._places[node.name]

    def operands(self, name: str, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a node of the captured network reads in place of parameters, as the kernels want it."""
        node = self._nodes[name]
        weight = _second_argument(node)
        return {each: kernel_weight(node, value) if each == weight else value for each, value in values.items()}


def _second_argument(node: torch.fx.Node) -> str:
    """Where layers have their weight."""
    argument: Any = node.args[1] if len(node.args) > 1 else None
    return argument.name if isinstance(argument, torch.fx.Node) else ""
