"""torchao's pt2e training with its X86 quantizer; its fused conv-BN patterns keep their batch norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from qat_exchange import Request, Trainee, serve
from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """Its own training configuration with other ranges of codes; observers and fake quantization see calibration."""
    config = get_default_x86_inductor_quantization_config(is_qat=True)
    activations = replace(config.input_activation, quant_max=2**request.activation_bits - 1)
    half = 2 ** (request.weight_bits - 1)
    weights = replace(config.weight, quant_min=-half, quant_max=half - 1)
    config = replace(config, input_activation=activations, output_activation=activations, weight=weights)
    example = (request.calibration()[0][:2],)
    shapes = ({0: torch.export.Dim("batch")},)
    module: Any = torch.export.export(network.train(), example, dynamic_shapes=shapes).module()
    prepared = prepare_qat_pt2e(module, X86InductorQuantizer().set_global(config))
    move_exported_model_to_eval(prepared)
    with torch.no_grad():
        for batch in request.calibration():
            prepared(batch)

    def evaluate() -> Any:
        move_exported_model_to_eval(prepared)
        return prepared

    return Trainee(
        forward=prepared,
        parameters=prepared.parameters(),
        evaluate=evaluate,
        train=lambda: move_exported_model_to_train(prepared),
    )


if __name__ == "__main__":
    serve(("torchao", "torch"), prepare)
