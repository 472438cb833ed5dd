"""The four networks of row `autotune`, and pictures for those that nobody has trained.

Random weights alone make a network whose results say nothing: its activations shrink, or the smallest error grows from
layer to layer. So the batch norms take their statistics from the pictures, and the branches of residual blocks are
scaled down, as training from a zero start leaves them (Goyal et al. 2017, section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bitwright.experiments.benchmarks.architectures import Architecture, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.latency.networks import detectors, small
from bitwright.experiments.benchmarks.peers.environments import LIBRARY

Images = npt.NDArray[np.float32]

_SEED = 0
_SETTLED_ON = 64  # pictures
_BRANCH_SCALE = 0.25
_WAVES = 6


@dataclass(frozen=True, kw_only=True)
class TunedNetwork:
    """A network and its pictures.

    Attributes:
        name: for tables.
        model: in eval mode.
        calibration: float32 [100, 3, H, W].
        search: what the search judges by, [n, 3, H, W].
        held_out: what nobody has seen, [n, 3, H, W].
        trained: whether its weights are real ones, and so its decisions.
    """

    name: str
    model: nn.Module
    calibration: Images
    search: Images
    held_out: Images
    trained: bool = False


class _Renamed(nn.Module):
    """A network whose argument is called `input`, as the peers' workers expect."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Float32 [1, 3, H, W] to what the network gives; several maps become one row of values each."""
        result = self.network(input)
        if isinstance(result, torch.Tensor):
            return result
        return torch.cat([each.flatten(2) for each in result], 2)


def mobilenet_v2(bench: Bench) -> TunedNetwork:
    """With its ImageNet weights and real pictures: calibrated on 100, searched with 64 others, checked on 400."""
    calibration = np.load(bench.sample.calibration_file, mmap_mode="r")
    scored = np.load(bench.sample.scored_file, mmap_mode="r")
    return TunedNetwork(
        name="mobilenet_v2",
        model=_Renamed(float_network("mobilenet_v2", bench.home)).eval(),
        calibration=np.array(calibration[:100]),
        search=np.array(calibration[100:164]),
        held_out=np.array(scored[::2]),
        trained=True,
    )


def efficientnet_b0(bench: Bench) -> TunedNetwork:
    """Depthwise convolutions, SiLU and squeeze-and-excitation, 128²."""
    size = 128
    kind = Architecture(name="efficientnet_b0", library="torchvision", task="classification", size=size)
    return _random("efficientnet_b0", lambda: build(kind, bench.home / LIBRARY)[0], size)


def detector(bench: Bench) -> TunedNetwork:
    """Cross-stage blocks, SiLU, concat and upsampling in the manner of YOLO, 160²."""
    return _random("yolo", lambda: detectors.CrossStageDetector(16, 1, "silu"), 160)


def small_network(bench: Bench) -> TunedNetwork:
    """Separable convolutions for pictures of 32²."""
    return _random("small", lambda: small.separable32(16, 2, 3, "relu"), 32)


NETWORKS: dict[str, Callable[[Bench], TunedNetwork]] = {
    "small": small_network,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "yolo": detector,
}


def _random(name: str, make: Callable[[], nn.Module], size: int) -> TunedNetwork:
    torch.manual_seed(_SEED)
    model = _Renamed(make())
    _settle(model, pictures(_SETTLED_ON, size, seed=1))
    return TunedNetwork(
        name=name,
        model=model.eval().requires_grad_(False),
        calibration=pictures(100, size, seed=2),
        search=pictures(64, size, seed=3),
        held_out=pictures(100, size, seed=4),
    )


@torch.no_grad()
def _settle(model: nn.Module, images: Images) -> None:
    """Gives the batch norms the statistics of pictures, and residual branches their scale."""
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain means over all batches
    for block in model.modules():
        own = [each for each in block.modules() if isinstance(each, nn.BatchNorm2d)]
        if own and (getattr(block, "use_res_connect", False) or getattr(block, "skip", False)):
            nn.init.constant_(own[-1].weight, _BRANCH_SCALE)
    model.train()
    model(torch.from_numpy(images))
    model.eval()


def pictures(count: int, size: int, *, seed: int) -> Images:
    """Coloured waves and discs, each picture with mean 0 and deviation 1: float32 [count, 3, size, size]."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    images = np.zeros((count, 3, size, size))
    for image in images:
        for wave in range(_WAVES):
            fx, fy = generator.normal(0, 12, 2)
            values = np.sin(fx * x + fy * y + generator.uniform(0, 2 * math.pi))
            if wave % 2:
                cx, cy, radius = generator.uniform(-1, 1), generator.uniform(-1, 1), generator.uniform(0.1, 0.7)
                values = values * ((x - cx) ** 2 + (y - cy) ** 2 < radius**2)
            image += generator.normal(0, 1, (3, 1, 1)) * values
    images -= images.mean((1, 2, 3), keepdims=True)
    images /= images.std((1, 2, 3), keepdims=True)
    return images.astype(np.float32)


def as_path(folder: Path, name: str, images: Images) -> Path:
    """Pictures as a .npy file for the peers' workers, written once."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{name}.partial.npy"
        np.save(partial, images)
        partial.replace(file)
    return file
