"""NVIDIA ModelOpt on a sentence encoder: int8 with SmoothQuant, fp8, int4 weights with AWQ; its linear layers."""

from __future__ import annotations

from typing import Any

import modelopt.torch.quantization as mtq
import torch
from encoder import load_encoder
from encoder_exchange import EncoderRequest, Forward, Ids, serve_encoder

SETTINGS = {
    "int8": mtq.INT8_DEFAULT_CFG,
    "int8_smoothquant": mtq.INT8_SMOOTHQUANT_CFG,
    "fp8": mtq.FP8_DEFAULT_CFG,
    "int4_awq": mtq.INT4_AWQ_CFG,
}


def quantize(request: EncoderRequest) -> Forward:
    """`mtq.quantize` with its own configurations."""
    texts = torch.from_numpy(request.texts())

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in torch.split(texts, 20):
                model(batch)

    encoder = load_encoder(request.weights, texts.shape[1])
    quantized: Any = mtq.quantize(encoder, SETTINGS[request.method], calibrate)

    def forward(ids: Ids) -> Any:
        with torch.no_grad():
            return quantized(torch.from_numpy(ids)).numpy()

    return forward


if __name__ == "__main__":
    serve_encoder(("nvidia-modelopt", "torch"), quantize)
