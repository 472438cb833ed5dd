"""NNCF's fp8 E4M3 on OpenVINO under several choices of scales."""

from __future__ import annotations

from typing import Any

import nncf
import numpy as np
import openvino as ov
from exchange import Images, Request
from openvino import opset13
from scale_choices import Forward, serve_choices


def prepare(request: Request) -> Any:
    """`nncf.quantize` in its mode FP8_E4M3, with its bias correction."""
    dataset = nncf.Dataset(list(range(request.count)), request.image)
    quantized = nncf.quantize(
        ov.convert_model(request.float_file),
        dataset,
        subset_size=request.count,
        target_device=nncf.TargetDevice.CPU,
        mode=nncf.QuantizationMode.FP8_E4M3,
    )

    def choose(factor: float) -> Forward:
        model = quantized.clone()
        for node in model.get_ordered_ops():
            if node.get_type_name() == "FakeConvert":  # float8(x * scale) / scale: a larger range is a smaller scale
                scale = node.input_value(1).get_node().data
                node.input(1).replace_source_output(opset13.constant(scale / np.float32(factor)).output(0))
        compiled = ov.Core().compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )

        def forward(images: Images) -> Any:
            return np.concatenate([compiled([image[None]])[0] for image in images])

        return forward

    return choose


if __name__ == "__main__":
    serve_choices(("nncf", "openvino"), prepare)
