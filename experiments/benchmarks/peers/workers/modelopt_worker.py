"""NVIDIA ModelOpt's post-training quantization of a torch module, batch norms folded first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from exchange import Images, Quantized, Request, serve
from networks import fold_batch_norms, load_network

SETTINGS = {"int8": mtq.INT8_DEFAULT_CFG, "fp8": mtq.FP8_DEFAULT_CFG}
BATCH = 20


def load(request: Request) -> torch.nn.Module:
    """The float module as it fares best: int8 with batch norms folded, since ModelOpt leaves them; fp8 without."""
    network = load_network(request.network, request.library)
    return fold_batch_norms(network) if request.method == "int8" else network


def quantize(network: torch.nn.Module, request: Request) -> Quantized:
    """`mtq.quantize` with its default configuration (max calibration), then its ONNX export."""

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.batches(BATCH):
                model(torch.from_numpy(batch))

    quantized: Any = mtq.quantize(network, SETTINGS[request.method], calibrate)
    file = ""
    if request.method == "int8":  # its fp8 export of convolutions leaves their weights to another tool
        file = str(Path(request.folder) / "quantized.onnx")
        _export(quantized, file, request.shape)

    def forward(images: Images) -> Any:
        with torch.no_grad():
            return quantized(torch.from_numpy(images)).numpy()

    return Quantized(file=file, forward=forward, note="scored in torch")


def _export(quantized: torch.nn.Module, file: str, shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        torch.onnx.export(quantized, (torch.zeros(shape),), file, dynamo=False, opset_version=20, input_names=["input"])


if __name__ == "__main__":
    serve(("nvidia-modelopt", "torch"), load, quantize)
