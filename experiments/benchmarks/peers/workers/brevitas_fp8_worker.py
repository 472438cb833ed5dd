"""Brevitas' fp8 E4M3 (OCP) under several choices of scales."""

from __future__ import annotations

import copy
from typing import Any

import torch
from brevitas.graph.quantize import preprocess_for_quantize
from brevitas_examples.imagenet_classification.ptq.ptq_common import apply_bias_correction, calibrate, quantize_model
from exchange import Images, Request
from networks import load_network
from scale_choices import BATCH, Forward, serve_choices

PARTS = ("weight", "act", "layerwise_first_last")


def prepare(request: Request) -> Any:
    """The steps of its `ptq_evaluate.py`, with four bits of exponent and three of mantissa; its default is E3M4."""
    batches = [(torch.from_numpy(batch), torch.zeros(len(batch))) for batch in request.batches(BATCH)]
    prepared = preprocess_for_quantize(
        load_network(request.network, request.library), equalize_iters=20, equalize_merge_bias=True
    )
    bits = {f"{part}_mantissa_bit_width": 3 for part in PARTS} | {f"{part}_exponent_bit_width": 4 for part in PARTS}
    quantized: Any = quantize_model(
        prepared,
        weight_bit_width=8,
        act_bit_width=8,
        **bits,
        weight_quant_granularity="per_channel",
        act_quant_percentile=99.999,
        scale_factor_type="float_scale",
        backend="layerwise",  # its other backends stop at float formats
        act_quant_type="sym",
        quant_format="float_ocp",
        bias_bit_width=None,
        uint_sym_act_for_unsigned_values=False,
    ).eval()
    with torch.no_grad():
        quantized(batches[0][0])
        calibrate(batches, quantized)

    def choose(factor: float) -> Forward:
        chosen = copy.deepcopy(quantized)
        for name, module in chosen.named_modules():
            if name.endswith("tensor_quant.scaling_impl"):
                module.register_forward_hook(lambda module, given, scale: scale * factor)
        with torch.no_grad():
            apply_bias_correction(batches, chosen)

        def forward(images: Images) -> Any:
            with torch.no_grad():
                return torch.as_tensor(chosen(torch.from_numpy(images))).numpy()

        return forward

    return choose


if __name__ == "__main__":
    serve_choices(("brevitas", "torch"), prepare)
