"""Our own side of quantization-aware training: from GPTQ on, with learned steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from qat_exchange import Request, Trainee, serve

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, with_formats
from bitwright.quant.capture import capture
from bitwright.quant.ptq import quantize


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """The x86 scheme with other bits; scales of activations start where the squared error is least."""
    formats = {"weights": f"int{request.weight_bits}", "activations": f"uint{request.activation_bits}"}
    scheme = with_formats(load_target("x86-vnni").scheme(), **formats)
    scheme = replace(scheme, activations=replace(scheme.activations, observer="mse"))
    calibration = request.calibration()
    network.eval()
    captured = capture(network, (calibration[0][:1],))
    images = (image[None] for batch in calibration for image in batch)
    start = quantize(captured, scheme, images, rounding="gptq")

    def attach(optimizer: torch.optim.Optimizer) -> QATCallback:
        callback = QATCallback(network, optimizer, scheme=scheme, calibration=calibration[:1])
        callback.warm_start(start)
        return callback

    return Trainee(
        forward=network,
        parameters=network.parameters(),
        attach=lambda optimizer: attach(optimizer).on_step,
        evaluate=network.eval,
        train=network.train,
    )


if __name__ == "__main__":
    serve(("bitwright", "torch"), prepare)
