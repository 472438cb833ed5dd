"""torchao's pt2e quantization with its X86 quantizer."""

from __future__ import annotations

from typing import Any

import torch
from exchange import Images, Quantized, Request, serve
from networks import load_network
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

BATCH = 20


def load(request: Request) -> Any:
    """The exported program's module, with a dynamic batch."""
    network = load_network(request.network, request.library)
    example = (torch.zeros(2, *request.shape[1:]),)
    return torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim("batch")},)).module()


def quantize(module: Any, request: Request) -> Quantized:
    """prepare, calibrate, convert; it has no ONNX exporter of its own, so it is scored by its reference graph."""
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for batch in request.batches(BATCH):
            prepared(torch.from_numpy(batch))
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)

    def forward(images: Images) -> Any:
        with torch.no_grad():
            return converted(torch.from_numpy(images)).numpy()

    return Quantized(forward=forward, note="no file: scored by its reference graph in torch")


if __name__ == "__main__":
    serve(("torchao", "torch"), load, quantize)
