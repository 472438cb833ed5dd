"""The smaller network computes what the whole one does with the channels zero: by brute force, in double precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.experiments.benchmarks import architectures, places
from bitwright.experiments.benchmarks.peers.environments import LIBRARY
from bitwright.qat.sparsity.in_place import remove_units
from bitwright.qat.sparsity.removal import removable, remove, without
from bitwright.quant.errors import InputError

# Of each kind of connection something: residual, dense, shuffled, inverted with squeeze and excitation, grouped, split
# by an attribute, ghosted, heads of attention, tokens mixed, places of a whole picture.
PUBLIC = (
    *("resnet18", "densenet121", "shufflenet_v2_x1_0", "mobilenet_v3_small", "resnext50_32x4d", "res2net50_14w_8s"),
    *("ghostnet_100", "regnety_002", "lcnet_050", "convnext_tiny", "deit_tiny_patch16_224", "mixer_s32_224"),
    *("lraspp_mobilenet_v3_large", "repvgg_a0", "r3d_18", "googlenet"),
)
DOUBLE_ROUNDING = 1e-10


class Mixture(nn.Module):
    """Residual, depthwise, concatenation, an excitation, halves, a head with its own idea of sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.gated = nn.Conv2d(16, 12, 1)
        self.tail = nn.Conv2d(6, 5, 1)
        self.features = 5
        self.head = nn.Linear(5 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depthwise(x)
        scaled = x * torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        value, gate = self.gated(torch.cat([x, scaled], 1)).chunk(2, 1)
        x = F.adaptive_avg_pool2d(self.tail(value * torch.sigmoid(gate)), 2)
        return self.head(x.reshape(-1, self.features * 4))


def settled(model: nn.Module) -> nn.Module:
    """Batch norms, biases and heads that are not those of a fresh network, which hide what is in front of them."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5 if "var" in name else -1.0, 1.5, generator=generator)
        elif tensor.is_floating_point() and not tensor.any():
            tensor.data.normal_(std=0.1, generator=generator)
    return model.double().eval().requires_grad_(False)


@pytest.fixture
def mixture() -> nn.Module:
    torch.manual_seed(0)
    return settled(Mixture())


PICTURE = torch.randn(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, args: tuple[Any, ...]) -> list[torch.Tensor]:
    found = torch.utils._pytree.tree_leaves(model(*args))
    return [each for each in found if isinstance(each, torch.Tensor)]


def check(model: nn.Module, args: tuple[Any, ...], *, at_least: int) -> None:
    """Each group alone, then all together."""
    whole = outputs(model, args)
    found = removable(model, args)
    assert len(found.groups) >= at_least
    every = [unit for group in found.groups for unit in group.units[1::3]]
    largest = max(float(each.abs().max()) for each in whole)
    wanted = without(found.captured, found.channels, every, args)
    assert max(float((a - b).abs().max()) for a, b in zip(wanted, whole, strict=True)) > 1e3 * DOUBLE_ROUNDING * largest
    before = sum(parameter.numel() for parameter in model.parameters())
    change = remove_units(model, found.channels, every)
    assert sum(parameter.numel() for parameter in model.parameters()) < before
    for own, want in zip(outputs(model, args), wanted, strict=True):
        assert own.shape == want.shape
        assert float((own - want).abs().max()) <= DOUBLE_ROUNDING * largest
    change.undo()
    for own, want in zip(outputs(model, args), whole, strict=True):
        assert torch.equal(own, want)


def test_a_small_network_of_every_connection(mixture: nn.Module) -> None:
    check(mixture, (PICTURE,), at_least=4)


def test_sizes_that_modules_keep_become_the_new_ones(mixture: nn.Module) -> None:
    found = removable(mixture, (PICTURE,))
    tail = found.channels.group("tail")
    assert tail in found.groups
    remove(mixture, found, tail.units[:2], (PICTURE,))
    assert mixture.features == 3
    assert (mixture.tail.out_channels, mixture.head.in_features) == (3, 12)
    stem = found.channels.group("stem.0")
    again = removable(mixture, (PICTURE,))
    assert len(again.channels.group("stem.0").units) == len(stem.units)
    remove(mixture, again, again.channels.group("stem.0").units[:3], (PICTURE,))
    assert (mixture.depthwise.groups, mixture.depthwise.in_channels) == (5, 5)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.conv(x), 2).reshape(-1, 16))


def test_a_constant_in_forward_is_refused_with_its_reason() -> None:
    model = settled(Constant())
    found = removable(model, (PICTURE,))
    assert not found.groups
    assert "sizes as constants: mat1 and mat2 shapes cannot be multiplied" in found.refused["conv"]
    assert model.conv.out_channels == 4
    with pytest.raises(InputError, match="1 of the units belong to no group that was proven"):
        remove(model, found, found.channels.groups[0].units[:1], (PICTURE,))


def test_a_group_is_never_emptied(mixture: nn.Module) -> None:
    found = removable(mixture, (PICTURE,))
    group = found.groups[0]
    with pytest.raises(InputError, match=r"group stem\.0: all of its 8 channels would go; keep at least one"):
        remove(mixture, found, group.units, (PICTURE,))


def test_an_optimizer_keeps_its_parameters_and_the_rest_of_their_moments(mixture: nn.Module) -> None:
    mixture.requires_grad_(True)
    optimizer = torch.optim.AdamW(mixture.parameters(), lr=1e-3)
    mixture(PICTURE).square().sum().backward()
    optimizer.step()
    weight = mixture.stem[0].weight
    moment = optimizer.state[weight]["exp_avg"].clone()
    found = removable(mixture, (PICTURE,))
    units = found.channels.group("stem.0").units
    remove(mixture, found, units[:2], (PICTURE,), optimizer=optimizer)
    assert mixture.stem[0].weight is weight
    assert any(each is weight for group in optimizer.param_groups for each in group["params"])
    assert torch.equal(optimizer.state[weight]["exp_avg"], moment[2:])
    mixture(PICTURE).square().sum().backward()
    optimizer.step()


@pytest.fixture(scope="module")
def library() -> Path:
    folder = places.peers_home() / LIBRARY
    if not (folder / "torchvision").is_dir() or not (folder / "timm").is_dir():
        pytest.skip("needs torchvision and timm: python -m bitwright.experiments.benchmarks.setup_peers")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_public_architectures(name: str, library: Path) -> None:
    (architecture,) = (each for each in architectures.ARCHITECTURES if each.name == name)
    model, args = architectures.build(architecture, library)
    settled(model)
    check(model, tuple(arg.double() for arg in args), at_least=5)
