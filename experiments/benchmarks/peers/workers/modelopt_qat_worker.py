"""ModelOpt: `mtq.quantize`, then training through its straight-through fake quantization, batch norms folded first."""

from __future__ import annotations

import copy
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from networks import fold_batch_norms
from qat_exchange import Request, Trainee, serve


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """Its int8 configuration with other bits."""
    settings: Any = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
    bits = {"*weight_quantizer": request.weight_bits, "*input_quantizer": request.activation_bits}
    for entry in settings["quant_cfg"]:
        if entry["quantizer_name"] in bits and "cfg" in entry:
            entry["cfg"]["num_bits"] = bits[entry["quantizer_name"]]

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.calibration():
                model(batch)

    quantized: Any = mtq.quantize(fold_batch_norms(network.eval()), settings, calibrate)
    for parameter in quantized.parameters():
        parameter.requires_grad_(True)
    return Trainee(forward=quantized, parameters=quantized.parameters(), evaluate=quantized.eval, train=quantized.train)


if __name__ == "__main__":
    serve(("nvidia-modelopt", "torch"), prepare)
