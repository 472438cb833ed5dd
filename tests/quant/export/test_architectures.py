"""Real architectures of torchvision, where it is installed: captured, quantized, written, run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

pytestmark = pytest.mark.slow

SIZES = {"inception_v3": 96, "vit_b_32": 224, "maxvit_t": 224}
ARCHITECTURES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
    "wide_resnet50_2",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
    "r3d_18",
]


def build(name: str) -> torch.nn.Module:
    # Its CPU build declares no operators, and its import needs these two.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    models: Any = pytest.importorskip("torchvision.models")
    settings: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    homes = (models, models.segmentation, models.video)
    home = next(home for home in homes if hasattr(home, name))
    if home is models.segmentation:
        settings["weights_backbone"] = None
    model: torch.nn.Module = getattr(home, name)(weights=None, **settings).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh statistics would make folding trivial
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    for parameter in model.parameters():
        if not parameter.any():  # heads that start at zero would hide everything
            torch.nn.init.normal_(parameter, 0, 0.02)
    return model


def sqnr_db(truth: np.ndarray, other: np.ndarray) -> float:
    noise = np.square(truth.astype(np.float64) - other).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(truth.astype(np.float64)).sum() / noise))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name: str, u8s8: QuantScheme, tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]) -> None:
    model = build(name)
    size = SIZES.get(name, 64)
    shape = (1, 3, 8, size, size) if name == "r3d_18" else (1, 3, size, size)
    x = torch.randn(shape)
    captured = capture(model, (x,))
    with torch.no_grad():
        truth = [tensor.numpy() for tensor in captured.outputs(model(x))]
    feed = {value_name(captured.graph.inputs[0]): x.numpy()}
    in_float = run_onnx(export_float(captured.graph, tmp_path / "float.onnx"), feed)
    for ours, expected in zip(in_float, truth, strict=True):
        assert np.abs(ours - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())

    quantized = quantize(captured, u8s8, [torch.randn(shape) for _ in range(2)])
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path))
    simulated = [tensor.numpy() for tensor in quantized.captured.outputs(quantized.run(x))]
    for expected, simulation, runtime in zip(truth, simulated, run_onnx(path, feed), strict=True):
        floor = sqnr_db(expected, simulation)
        assert floor > 5  # a ViT with random weights and two batches of noise is the worst at 9.8
        # Codes that turn over at ties spread through the layers behind: the same noise, not the same codes.
        assert abs(sqnr_db(expected, runtime) - floor) < 2
