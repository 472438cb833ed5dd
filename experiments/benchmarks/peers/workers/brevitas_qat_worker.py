"""Brevitas: its graph quantization with batch norms merged, activations' scales learned on from calibration."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from brevitas.graph.quantize import preprocess_for_quantize
from brevitas_examples.imagenet_classification.ptq.ptq_common import calibrate, quantize_model
from qat_exchange import Trainee, serve


class Asked(Protocol):
    """What both the contests of accuracy and of steps say."""

    @property
    def weight_bits(self) -> int:
        """Of every layer."""

    @property
    def activation_bits(self) -> int:
        """Of every activation that is quantized."""

    def calibration(self) -> list[torch.Tensor]:
        """Batches."""


def prepare(network: torch.nn.Module, request: Asked) -> Trainee:
    """The steps of its `ptq_evaluate.py` up to calibration; scales of weights by the least squared error."""
    prepared = preprocess_for_quantize(network.eval(), equalize_iters=0)
    quantized: Any = quantize_model(
        prepared,
        weight_bit_width=request.weight_bits,
        act_bit_width=request.activation_bits,
        weight_quant_granularity="per_channel",
        act_quant_percentile=99.999,
        weight_param_method="mse" if request.weight_bits < 8 else "stats",
        act_param_method="mse" if request.activation_bits < 8 else "stats",
        scale_factor_type="float_scale",
        backend="fx",
        act_quant_type="asym",
        quant_format="int",
        bias_bit_width=32,
    ).eval()
    batches = [(batch, torch.zeros(len(batch))) for batch in request.calibration()]
    with torch.no_grad():
        quantized(batches[0][0])
        calibrate(batches, quantized)

    def forward(images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = quantized(images)
        return getattr(result, "value", result)

    def evaluate() -> Any:
        quantized.eval()
        return forward

    for parameter in quantized.parameters():
        parameter.requires_grad_(True)
    return Trainee(forward=forward, parameters=quantized.parameters(), evaluate=evaluate, train=quantized.train)


if __name__ == "__main__":
    serve(("brevitas", "torch"), prepare)
