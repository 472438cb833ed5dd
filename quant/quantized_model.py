"""A quantized network: plan + qparams + float weights, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import TensorRef
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
        qparams: the numbers for every activation and weight of the plan.
    """

    captured: CapturedModel
    plan: QuantPlan
    qparams: Mapping[TensorRef, QParams]

    def bias_qparams(self, bias: BiasPlan) -> QParams:
        """int32, scale = scale(input) * scale(weight), zero point 0; `[]` or `[C]`."""
        scale = self.qparams[bias.input].scale * self.qparams[bias.weight].scale
        axis = 0 if scale.dim() else None
        return QParams(BIAS_SPEC, scale, torch.zeros_like(scale), axis)

    @cached_property
    def simulated_values(self) -> dict[str, torch.Tensor]:
        """Weights and biases as the low-precision network sees them, by placeholder name."""
        captured = self.captured
        values = {}
        for ref in self.plan.weights:
            name = captured.value_refs[ref]
            values[name] = fake_quantize(captured.values[name], self.qparams[ref])
        for bias in self.plan.biases.values():
            name = captured.value_refs[bias.bias]
            values[name] = fake_quantize(captured.values[name], self.bias_qparams(bias))
        return values

    def transform(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        """What the consumers of a tensor see."""
        qparams = self.qparams.get(ref)
        return fake_quantize(tensor, qparams) if qparams is not None else tensor

    def run(self, *args: Any, state: dict[str, torch.Tensor] | None = None, **kwargs: Any) -> Any:
        """Simulates the quantized network on the user's own arguments; see `CapturedModel.run`."""
        return self.captured.run(*args, state=state, transform=self.transform, values=self.simulated_values, **kwargs)
