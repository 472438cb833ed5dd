"""NVIDIA ModelOpt's fp8 E4M3 under several choices of scales."""

from __future__ import annotations

from typing import Any

import modelopt.torch.quantization as mtq
import torch
from exchange import Images, Request
from modelopt.torch.quantization.nn import TensorQuantizer
from networks import load_network
from scale_choices import BATCH, Forward, serve_choices


def prepare(request: Request) -> Any:
    """`mtq.quantize` with `FP8_DEFAULT_CFG` (per tensor, by the largest value seen); batch norms stay."""

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.batches(BATCH):
                model(torch.from_numpy(batch))

    quantized: Any = mtq.quantize(load_network(request.network, request.library), mtq.FP8_DEFAULT_CFG, calibrate)
    quantizers = [module for module in quantized.modules() if isinstance(module, TensorQuantizer)]
    ranges = {quantizer: quantizer.amax.clone() for quantizer in quantizers if quantizer.amax is not None}

    def choose(factor: float) -> Forward:
        for quantizer, largest in ranges.items():
            quantizer.amax = largest * factor

        def forward(images: Images) -> Any:
            with torch.no_grad():
                return quantized(torch.from_numpy(images)).numpy()

        return forward

    return choose


if __name__ == "__main__":
    serve_choices(("nvidia-modelopt", "torch"), prepare)
