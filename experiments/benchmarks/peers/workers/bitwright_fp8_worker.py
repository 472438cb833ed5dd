"""Our own fp8 E4M3 under several choices of scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from exchange import Images, Request
from networks import load_network
from scale_choices import Forward, serve_choices

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct import ROUNDINGS
from bitwright.quant.reconstruct.reconstruct import reconstruct


def prepare(request: Request) -> Any:
    """`quantize` for a target, then all scales times the factor, then the rounding: `h200,gptq`."""
    target, rounding = request.method.split(",")
    method = ROUNDINGS.load(rounding)
    samples = [(torch.from_numpy(request.image(index)),) for index in range(request.count)]
    captured = capture(load_network(request.network, request.library), (torch.zeros(1, 3, 224, 224),))
    calibrated = quantize(captured, load_target(target).scheme(), samples, bias_correction=False)

    def choose(factor: float) -> Forward:
        qparams = {ref: replace(each, scale=each.scale * factor) for ref, each in calibrated.qparams.items()}
        rounded = reconstruct(replace(calibrated, qparams=qparams), samples[: method.samples], method)
        return lambda images: logits(rounded, images)

    return choose


def logits(quantized: QuantizedModel, images: Images) -> Any:
    """Of the simulation, image by image as it was captured."""
    return torch.cat([quantized.run(image[None]) for image in torch.from_numpy(images)]).numpy()


if __name__ == "__main__":
    serve_choices(("bitwright", "torch"), prepare)
