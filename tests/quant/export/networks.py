"""Small networks that between them hold every family of operators; each with example arguments."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Example = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Functional(nn.Module):
    """Some layers, and a forward made of them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = forward

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(self, *args)


def image(channels: int = 3, size: int = 16, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, size, size)


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True))
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(F.relu6(self.depthwise(self.expand(x))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 6, 16))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(x))[:, 0])


class Pyramid(nn.Module):
    """Two levels, one head on both, results of unlike size."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.top = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.lateral, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        low = F.relu(self.bottom(x))
        high = F.relu(self.top(low))
        low = self.lateral(low) + F.interpolate(high, scale_factor=2.0, mode="nearest")
        return {"levels": [self.head(low), self.head(high)], "features": (high,)}


def branches(m: Any, x: torch.Tensor) -> torch.Tensor:
    left, right = m.stem(x).chunk(2, 1)
    right = F.silu(m.right(right))
    joined = torch.cat([left, right, F.max_pool2d(left, 3, 1, 1)], 1)
    shuffled = joined.view(1, 3, 4, *joined.shape[2:]).transpose(1, 2).flatten(1, 2)
    return m.out(shuffled).sigmoid() * 2


def causal(m: Any, x: torch.Tensor) -> torch.Tensor:
    query, key, value = m.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind(0)
    return m.out(F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2))


def einsum(m: Any, x: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("bic,bjc->bij", m.a(x), m.b(x)).softmax(-1)
    return torch.einsum("bij,bjc->bic", scores, x)


def padded(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = F.pad(m.a(x), (1, 2, 0, 1))
    x = F.pad(m.b(x), (2, 1, 1, 2), mode="reflect")
    return F.pad(m.c(x), (1, 1, 1, 1), mode="replicate")


def warped(m: Any, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return m.out(F.grid_sample(m.a(x), (grid * 0.9 + 0.05).clamp(-1, 1), align_corners=False))


def gates(m: Any, x: torch.Tensor) -> torch.Tensor:
    squeezed = F.hardsigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
    return F.hardswish(m.out(x * squeezed))


def scale_add(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.addmm(m.out.bias, m.a(x), m.out.weight.t())
    return F.normalize(m.b(y), dim=-1) * 3.0


NETWORKS: dict[str, Callable[[], Example]] = {
    "inverted_residual": lambda: (InvertedResidual(), (image(),)),
    "attention": lambda: (Attention(), (torch.randn(2, 5, 16),)),
    "causal_attention": lambda: (
        Functional(causal, qkv=nn.Linear(16, 48), out=nn.Linear(16, 16)),
        (torch.randn(2, 6, 16),),
    ),
    "einsum": lambda: (Functional(einsum, a=nn.Linear(8, 8), b=nn.Linear(8, 8)), (torch.randn(2, 5, 8),)),
    "pyramid": lambda: (Pyramid(), (image(),)),
    "branches": lambda: (
        Functional(branches, stem=nn.Conv2d(3, 8, 3), right=nn.Conv2d(4, 4, 1), out=nn.Conv2d(12, 4, 1)),
        (image(),),
    ),
    "conv1d": lambda: (
        nn.Sequential(
            nn.Conv1d(4, 8, 5, padding="same"), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 4, padding="same")
        ),
        (torch.randn(2, 4, 20),),
    ),
    "conv3d": lambda: (
        nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 2, 1)),
        (torch.randn(1, 2, 6, 6, 6),),
    ),
    "transposed": lambda: (
        nn.Sequential(
            nn.ConvTranspose2d(3, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2),
        ),
        (image(size=8),),
    ),
    "dilated_grouped": lambda: (
        nn.Sequential(nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2), nn.LeakyReLU(0.1), nn.Conv2d(8, 4, (1, 3))),
        (image(4),),
    ),
    "group_norm": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True)
        ),
        (image(),),
    ),
    "linear_rank_3": lambda: (
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False)),
        (torch.randn(2, 5, 8),),
    ),
    "addmm": lambda: (
        Functional(scale_add, a=nn.Linear(8, 8), b=nn.Linear(4, 4), out=nn.Linear(8, 4)),
        (torch.randn(3, 8),),
    ),
    "upsample": lambda: (
        Functional(
            lambda m, x: F.interpolate(m.b(F.interpolate(m.a(x), size=(20, 24), mode="bilinear")), scale_factor=2),
            a=nn.Conv2d(3, 4, 3, 2),
            b=nn.Conv2d(4, 4, 3),
        ),
        (image(),),
    ),
    "pads": lambda: (Functional(padded, **{name: nn.Conv2d(3, 3, 3) for name in "abc"}), (image(),)),
    "pooling": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.AvgPool2d(2, 1, 1),
            nn.AdaptiveAvgPool2d((3, 2)),
        ),
        (image(),),
    ),
    "grid_sample": lambda: (
        Functional(warped, a=nn.Conv2d(3, 4, 3, padding=1), out=nn.Conv2d(4, 4, 1)),
        (image(), torch.rand(1, 8, 8, 2) * 2 - 1),
    ),
    "squeeze_excite": lambda: (
        Functional(gates, down=nn.Conv2d(3, 2, 1), up=nn.Conv2d(2, 3, 1), out=nn.Conv2d(3, 4, 1)),
        (image(),),
    ),
    "pixel_shuffle": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1), nn.PixelUnshuffle(4)),
        (image(),),
    ),
}


class Recurrent(nn.Module):
    """Its memory goes through a convolution, and is both quantized and counted with."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 2, 1)
        self.register_buffer("memory", torch.randn(1, 4, 8, 8))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory = torch.tanh(self.mix(torch.cat([x, self.memory], 1)))
        self.frames += 1
        return self.out(self.memory) * self.frames
