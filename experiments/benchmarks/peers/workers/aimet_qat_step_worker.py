"""AIMET's training: batch norms folded, quantization simulated with the per-channel defaults, then the user's loop."""

from __future__ import annotations

import torch
from networks import torchvision_models
from qat_step_exchange import Request, Trainee, serve


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """Its documented steps; AIMET's import needs the operators that torchvision gets here."""
    torchvision_models(request.library)
    from aimet_torch.batch_norm_fold import fold_all_batch_norms
    from aimet_torch.common.quantsim_config.utils import get_path_for_per_channel_config
    from aimet_torch.quantsim import QuantizationSimModel

    network.eval()
    example = request.calibration()[0][:1]
    fold_all_batch_norms(network, input_shapes=tuple(example.shape), dummy_input=example)
    simulated = QuantizationSimModel(
        network,
        dummy_input=example,
        default_output_bw=request.activation_bits,
        default_param_bw=request.weight_bits,
        config_file=get_path_for_per_channel_config(),
    )

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.calibration():
                model(batch)

    simulated.compute_encodings(calibrate)
    simulated.model.train()
    return Trainee(forward=simulated.model, parameters=list(simulated.model.parameters()))


if __name__ == "__main__":
    serve(("aimet-torch", "torch"), {"quantsim": prepare})
