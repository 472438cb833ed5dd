"""Brevitas' post-training route: cross-layer equalization, calibration, rounding, bias correction, Q/DQ export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from brevitas.export import export_onnx_qcdq
from brevitas.graph.quantize import preprocess_for_quantize
from brevitas_examples.imagenet_classification.ptq.ptq_common import (
    apply_bias_correction,
    apply_gpfq,
    apply_gptq,
    calibrate,
    quantize_model,
)
from exchange import Images, Quantized, Request, serve
from networks import load_network

BATCH = 20
INT4 = "int4"
ALONE = "alone"  # without equalization
ROUNDINGS = {"gpfq": apply_gpfq, "gptq": apply_gptq}


def load(request: Request) -> torch.nn.Module:
    """The float module; Brevitas turns ReLU6 into ReLU while it equalizes."""
    return load_network(request.network, request.library)


def quantize(network: torch.nn.Module, request: Request) -> Quantized:
    """The steps of its `ptq_evaluate.py`, with weights per channel and asymmetric activations.

    The method is `int8` or `int4` for the weights, `alone` without equalization, and last a rounding: `int4,gpfq`.
    """
    wishes = request.method.split(",")
    batches = [(torch.from_numpy(batch), torch.zeros(len(batch))) for batch in request.batches(BATCH)]
    iterations = 0 if ALONE in wishes else 20
    prepared = preprocess_for_quantize(network, equalize_iters=iterations, equalize_merge_bias=True)
    quantized: Any = quantize_model(
        prepared,
        weight_bit_width=4 if INT4 in wishes else 8,
        act_bit_width=8,
        weight_quant_granularity="per_channel",
        act_quant_percentile=99.999,
        scale_factor_type="float_scale",
        backend="fx",
        act_quant_type="asym",
        quant_format="int",
        bias_bit_width=32,
    ).eval()
    with torch.no_grad():
        quantized(batches[0][0])
        calibrate(batches, quantized)
        if wishes[-1] in ROUNDINGS:
            ROUNDINGS[wishes[-1]](batches, quantized, act_order=True)
        apply_bias_correction(batches, quantized)
    file = str(Path(request.folder) / "quantized.onnx")
    export_onnx_qcdq(quantized, args=torch.zeros(request.shape), export_path=file, opset_version=20, dynamo=False)

    def forward(images: Images) -> Any:
        with torch.no_grad():
            return torch.as_tensor(quantized(torch.from_numpy(images))).numpy()

    return Quantized(file=file, forward=forward, note="scored in torch")


if __name__ == "__main__":
    serve(("brevitas", "torch"), load, quantize)
