"""torchao's pt2e training with its X86 quantizer: convolutions and batch norms are fused and both trained."""

from __future__ import annotations

from typing import Any

import torch
from qat_step_exchange import Request, Trainee, serve
from torchao.quantization.pt2e import move_exported_model_to_train
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """`torch.export`, `prepare_qat_pt2e`, then the user's own loop."""
    example = request.calibration()[0][:2]
    module: Any = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(module, quantizer)
    move_exported_model_to_train(prepared)
    return Trainee(forward=prepared, parameters=list(prepared.parameters()))


if __name__ == "__main__":
    serve(("torchao", "torch"), {"pt2e": prepare})
