"""NNCF's post-training quantization on OpenVINO; its artefact is OpenVINO's IR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
from exchange import Images, Quantized, Request, serve

MIXED = nncf.QuantizationPreset.MIXED  # symmetric weights, asymmetric activations
SETTINGS: dict[str, dict[str, Any]] = {
    "fast_bias_correction": {"preset": MIXED, "fast_bias_correction": True},
    "bias_correction": {"preset": MIXED, "fast_bias_correction": False},
    "fp8": {"mode": nncf.QuantizationMode.FP8_E4M3},
}


def load(request: Request) -> Any:
    """The float model; by `convert_model`, since bias correction is skipped without a word after `read_model`."""
    return ov.convert_model(request.float_file)


def quantize(model: Any, request: Request) -> Quantized:
    """`nncf.quantize` for the CPU plugin, then the IR on disk."""
    dataset = nncf.Dataset(list(range(request.count)), request.image)
    quantized = nncf.quantize(
        model,
        dataset,
        subset_size=request.count,
        target_device=nncf.TargetDevice.CPU,
        **SETTINGS[request.method],
    )
    file = str(Path(request.folder) / "quantized.xml")
    ov.save_model(quantized, file, compress_to_fp16=False)
    # In float arithmetic over the fake-quantized values: before VNNI the plugin's int8 kernels saturate at 16 bits,
    # which says something about the processor and nothing about the quantized model.
    compiled = ov.Core().compile_model(
        quantized, "CPU", {"LP_TRANSFORMS_MODE": "NO", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )

    def forward(batch: Images) -> Any:
        return np.concatenate([compiled([image[None]])[0] for image in batch])

    return Quantized(file=file, forward=forward, note="scored in float arithmetic on its fake-quantized model")


if __name__ == "__main__":
    serve(("nncf", "openvino"), load, quantize)
