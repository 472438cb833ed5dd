"""Small networks with everything that a plan has to find again, and data to train them on."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.quant.scheme import QuantScheme


class Residual(nn.Module):
    """Conv-BN-ReLU in place, depthwise conv-BN, addition in place, functional ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.depthwise(y))
        y += x
        return F.relu(y)


class Everything(nn.Module):
    """Residual blocks, a layer that is called twice, concat, pooling by function, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Residual(8), Residual(8))
        self.shared = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        twice = self.shared(self.shared(x))
        x = torch.cat([x, twice], dim=1)
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).flatten(1)
        return self.head(x)


def plain_sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class ResidualSequential(nn.Sequential):
    """A container that adds: its children are iterated by torch's own forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def sequential_with_skip() -> nn.Module:
    inner = ResidualSequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 8, 3), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


class FunctionalWeights(nn.Module):
    """Weights that only function calls read, a learned constant that is added, an upsampling inside interpolate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.bias = nn.Parameter(torch.randn(8) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 8, 12, 12) * 0.1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.conv2d(x, self.weight, self.bias, padding=1))
        x = x + self.position
        y = F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="nearest")
        return self.head((x * y).mean((2, 3)))


class Transposed(nn.Module):
    """A deconvolution and a layer whose weight is computed from others."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.up(F.relu(self.down(x))))
        return self.head(F.relu(self.normed(x)).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "everything": Everything,
    "plain_sequential": plain_sequential,
    "sequential_with_skip": sequential_with_skip,
    "functional_weights": FunctionalWeights,
    "transposed": Transposed,
}


def batch(rows: int = 32, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose class is where the light is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (rows,), generator=generator)
    pictures = torch.randn(rows, 3, 12, 12, generator=generator) * 0.5
    for row, label in enumerate(labels.tolist()):
        pictures[row, label % 3] += 1.0 + label / 3
    return pictures, labels


def settled(network: nn.Module) -> nn.Module:
    """With batch-norm statistics of real data, and factors of both signs."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-1.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    network.train()
    with torch.no_grad():
        for seed in range(20):
            network(batch(seed=seed)[0])
    return network


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return settled(NETWORKS[request.param]())


@pytest.fixture
def everything() -> nn.Module:
    torch.manual_seed(0)
    return settled(Everything())


@pytest.fixture
def scheme() -> QuantScheme:
    return load_target("x86-vnni").scheme()
