"""AIMET's quantization simulation of a torch module, batch norms folded, per-channel weights, Q/DQ export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from exchange import Images, Quantized, Request, serve
from networks import load_network, torchvision_models

BATCH = 20


def load(request: Request) -> torch.nn.Module:
    """The float module; AIMET's import needs the operators that torchvision gets here."""
    torchvision_models(request.library)
    return load_network(request.network, request.library)


def quantize(network: torch.nn.Module, request: Request) -> Quantized:
    """Its documented steps: fold batch norms, simulate with the per-channel defaults, compute encodings, export."""
    # Behind `load`, which makes them importable.
    import aimet_torch
    from aimet_torch.batch_norm_fold import fold_all_batch_norms
    from aimet_torch.common.quantsim_config.utils import get_path_for_per_channel_config
    from aimet_torch.quantsim import QuantizationSimModel

    example = torch.zeros(request.shape)
    fold_all_batch_norms(network, input_shapes=tuple(example.shape), dummy_input=example)
    simulated = QuantizationSimModel(
        network,
        dummy_input=example,
        default_output_bw=8,
        default_param_bw=8,
        config_file=get_path_for_per_channel_config(),
    )

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.batches(BATCH):
                model(torch.from_numpy(batch))

    simulated.compute_encodings(calibrate)
    file = str(Path(request.folder) / "quantized.onnx")
    aimet_torch.onnx.export(
        simulated.model, example, file, input_names=["input"], output_names=["logits"], opset_version=20, dynamo=False
    )

    def forward(images: Images) -> Any:
        with torch.no_grad():
            return simulated.model(torch.from_numpy(images)).numpy()

    return Quantized(file=file, forward=forward, note="scored in torch")


if __name__ == "__main__":
    serve(("aimet-torch", "torch"), load, quantize)
