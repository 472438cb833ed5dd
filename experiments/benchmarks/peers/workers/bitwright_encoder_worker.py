"""Our own side of the sentence encoder: a format, preparations, at last perhaps a rounding: `w4a16,awq,gptq`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from encoder import load_encoder
from encoder_exchange import EncoderRequest, Forward, Ids, serve_encoder

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.formats import FORMATS
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.ptq import quantize as post_training_quantize
from bitwright.quant.reconstruct import ROUNDINGS
from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme

GROUP = 128


def scheme_of(name: str) -> QuantScheme:
    """The formats: what processors, Hopper and weight-only kernels multiply in low precision."""
    if name == "fp8":
        return replace(load_target("h200").scheme(), codes_as_read=True)
    base = replace(load_target("x86-vnni").scheme(), codes_as_read=True)
    if name == "w8a8":  # products; sums and softmax in float, as the peers have them
        activations = replace(base.activations, observer="min_max")
        products = [Override(operator=op, keep_float=True) for op in ("add", "softmax")]
        return replace(base, activations=activations).with_overrides(*products)
    return QuantScheme(
        name=name,
        activations=QParamsSpec(format=FORMATS["float16"], symmetric=True),
        weights=QParamsSpec(
            format=FORMATS["uint4"],
            symmetric=False,
            granularity=Granularity.PER_BLOCK,
            block_size=GROUP,
            observer="mse",
        ),
        bias=BiasKind.FLOAT32,
        quantized_operators=frozenset({"linear"}),
        codes_as_read=True,
    )


def quantize(request: EncoderRequest) -> Forward:
    """Captures, quantizes, simulates."""
    name, *wishes = request.method.split(",")
    texts = torch.from_numpy(request.texts())
    captured = capture(load_encoder(request.weights, texts.shape[1]), (texts[:1],))
    quantized = post_training_quantize(
        captured,
        scheme_of(name),
        torch.split(texts, 1),
        preparations=[wish for wish in wishes if wish in PREPARATIONS.names()],
        rounding=next((wish for wish in wishes if wish in ROUNDINGS.names()), None),
    )

    def forward(ids: Ids) -> Any:
        return quantized.run(torch.from_numpy(ids)).numpy()

    return forward


if __name__ == "__main__":
    serve_encoder(("bitwright", "torch"), quantize)
