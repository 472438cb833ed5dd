"""NVIDIA ModelOpt's `auto_quantize`: which layers it keeps in float for a number of effective bits of the weights.

Its sensitivities come from gradients of a loss, here the cross-entropy to the float network's own decisions.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from networks import fold_batch_norms, load_network

BATCH = 8


def main() -> None:
    """Answers `{network, library, calibration, images, effective_bits: […]}` with the layers in int8 for each."""
    request = json.loads(Path(sys.argv[1]).read_text())
    network = fold_batch_norms(load_network(request["network"], request["library"]))
    network.requires_grad_(True)
    activations: list[Any] = [module for module in network.modules() if hasattr(module, "inplace")]
    for module in activations:
        module.inplace = False  # its hooks forbid that what they hand on is modified
    images = torch.from_numpy(np.array(np.load(request["calibration"], mmap_mode="r")[: request["images"]]))
    batches = list(torch.split(images, BATCH))
    with torch.no_grad():
        decisions = [network(batch).argmax(1) for batch in batches]
    start, chosen = time.perf_counter(), {}
    for bits in request["effective_bits"]:
        chosen[str(bits)] = _layers_in_int8(network, list(zip(batches, decisions, strict=True)), bits)
    answer = {
        "layers": chosen,
        "wall_s": time.perf_counter() - start,
        "versions": {name: metadata.version(name) for name in ("nvidia-modelopt", "torch")},
    }
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))


def _layers_in_int8(network: torch.nn.Module, data: list[Any], bits: float) -> list[str]:
    model: Any
    model, _ = mtq.auto_quantize(
        copy.deepcopy(network),
        constraints={"effective_bits": bits},
        quantization_formats=[mtq.INT8_DEFAULT_CFG],
        data_loader=data,
        forward_step=lambda model, batch: model(batch[0]),
        loss_func=lambda logits, batch: torch.nn.functional.cross_entropy(logits, batch[1]),
        num_calib_steps=len(data),
        num_score_steps=len(data),
    )
    return [
        name
        for name, module in model.named_modules()
        if hasattr(module, "weight_quantizer") and module.weight_quantizer.is_enabled
    ]


if __name__ == "__main__":
    main()
