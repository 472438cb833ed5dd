"""ModelOpt's training: `mtq.quantize` with its int8 configuration, then the user's own loop."""

from __future__ import annotations

from typing import Any

import modelopt.torch.quantization as mtq
import torch
from networks import fold_batch_norms
from qat_step_exchange import Request, Trainee, serve


def kept(network: torch.nn.Module, request: Request) -> Trainee:
    """As documented: batch norms stay, weights and inputs of layers are quantized, additions are not."""

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.calibration():
                model(batch)

    quantized: Any = mtq.quantize(network.eval(), mtq.INT8_DEFAULT_CFG, calibrate)
    quantized.requires_grad_(True).train()
    return Trainee(forward=quantized, parameters=list(quantized.parameters()))


def folded(network: torch.nn.Module, request: Request) -> Trainee:
    """The same of a network whose batch norms were folded before."""
    return kept(fold_batch_norms(network.eval()), request)


if __name__ == "__main__":
    serve(("nvidia-modelopt", "torch"), {"batch norms kept": kept, "batch norms folded": folded})
