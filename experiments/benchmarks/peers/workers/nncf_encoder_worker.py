"""NNCF on a sentence encoder in OpenVINO: int8 with SmoothQuant, fp8, int4 weights with AWQ, GPTQ, scale estimation."""

from __future__ import annotations

from typing import Any

import nncf
import openvino as ov
from encoder_exchange import EncoderRequest, Forward, Ids, serve_encoder

GROUP = 128
MODES: dict[str, dict[str, Any]] = {
    "int8": {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False},
    "fp8": {"mode": nncf.QuantizationMode.FP8_E4M3},
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "int4_awq": {"mode": nncf.CompressWeightsMode.INT4_ASYM, "awq": True, "scale_estimation": True},
    "int4_gptq": {"mode": nncf.CompressWeightsMode.INT4_ASYM, "gptq": True},
}


def quantize(request: EncoderRequest) -> Forward:
    """`nncf.quantize` for transformers (SmoothQuant is part of it), or `nncf.compress_weights` of every layer."""
    dataset = nncf.Dataset([ids[None] for ids in request.texts()])
    model: Any = ov.convert_model(request.float_file)
    if request.method in MODES:
        options = MODES[request.method]
        model = nncf.quantize(
            model,
            dataset,
            subset_size=len(request.texts()),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            **options,
        )
    else:
        model = nncf.compress_weights(model, group_size=GROUP, ratio=1.0, dataset=dataset, **WEIGHTS[request.method])
    # In float arithmetic over its fake-quantized values, as `nncf_worker` says.
    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {
            "LP_TRANSFORMS_MODE": "NO",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        },
    )

    def forward(ids: Ids) -> Any:
        return compiled([ids])[0]

    return forward


if __name__ == "__main__":
    serve_encoder(("nncf", "openvino"), quantize)
