"""A quantized network: plan + qparams + float weights, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.plan import BiasPlan, QuantPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.scheme import QParamsSpec

BIAS_SPEC = QParamsSpec(format=FORMATS["int32"], symmetric=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedModel:
    """What PTQ and QAT end in and exporters begin with.

    Attributes:
        captured: the network in float, batch norms folded, biases corrected.
        plan: which tensor gets which format.
        qparams: the numbers for every weight of the plan, and for every activation whose scale is fixed.
        dynamic: how the other activations take theirs from the data.
    """

    captured: CapturedModel
    plan: QuantPlan
    qparams: Mapping[TensorRef, QParams]
    dynamic: Mapping[TensorRef, DynamicQParams] = field(default_factory=dict)

    def bias_qparams(self, bias: BiasPlan) -> QParams:
        """int32, scale = scale(input) * scale(weight), zero point 0; `[]` or `[C]`.

        The groups of a transposed convolution share their weights' scales, so those repeat.
        """
        scale = self.qparams[bias.input].scale * self.qparams[bias.weight].scale
        if scale.dim():
            scale = scale.repeat(self.captured.graph.tensors[bias.bias].elements // scale.numel())
        axis = 0 if scale.dim() else None
        return QParams(BIAS_SPEC, scale, torch.zeros_like(scale), axis)

    @cached_property
    def simulated_values(self) -> dict[str, torch.Tensor]:
        """Weights as the nodes in low precision see them, by placeholder name."""
        values = {}
        for ref in self.plan.weights:
            name = self.captured.value_refs[ref]
            values[name] = fake_quantize(self.captured.values[name], self.qparams[ref])
        return values

    @cached_property
    def simulated_operands(self) -> dict[str, dict[str, torch.Tensor]]:
        """What each node in low precision reads in place of float parameters: by its name and the placeholder's.

        By node, since a bias that layers share has another scale in each, and nodes that stay in float read floats.
        """
        return {
            node.name: self.operands_of(node) for node in self.captured.graph.nodes if node.name in self.plan.quantized
        }

    def operands_of(self, node: Node) -> dict[str, torch.Tensor]:
        """What a node in low precision reads in place of float parameters, by the placeholder's name."""
        names = self.captured.value_refs
        own = {names[ref]: self.simulated_values[names[ref]] for ref in node.tensors if ref in self.plan.weights}
        bias = self.plan.biases.get(node.name)
        if bias is not None:
            own[names[bias.bias]] = fake_quantize(self.captured.values[names[bias.bias]], self.bias_qparams(bias))
        return own

    def transform(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        """What the consumers of a tensor see."""
        qparams = self.qparams.get(ref)
        if qparams is None and ref in self.dynamic and tensor.numel():
            qparams = self.dynamic[ref].of(tensor)
        return fake_quantize(tensor, qparams) if qparams is not None else tensor

    def run(
        self,
        *args: Any,
        state: dict[str, torch.Tensor] | None = None,
        transform: Transform | None = None,
        **kwargs: Any,
    ) -> Any:
        """Simulates the quantized network on the user's own arguments; see `CapturedModel.run`.

        Args:
            *args: positional arguments of `forward`.
            state: mutated buffers; updated in place.
            transform: in place of `self.transform`, for callers that look at what flows.
            **kwargs: keyword arguments of `forward`.
        """
        watch = transform or self.transform
        return self.captured.run(*args, state=state, transform=watch, operands=self.simulated_operands, **kwargs)
