"""Networks over tokens: mixers and encoders."""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import conv


class MixerBlock(nn.Module):
    """Two perceptrons, across tokens and across channels (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.channels = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, tokens, channels] to the same."""
        x = x + self.tokens(self.before(x).transpose(1, 2)).transpose(1, 2)
        mixed: torch.Tensor = x + self.channels(self.between(x))
        return mixed


class Patches(nn.Module):
    """A picture as tokens."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, H W / patch², channels]."""
        tokens: torch.Tensor = self.embed(x).flatten(2).transpose(1, 2)
        return tokens


class MeanOfTokens(nn.Module):
    """The mean over tokens, one linear layer."""

    def __init__(self, channels: int, classes: int = 100) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, tokens, channels] to [N, classes]."""
        scores: torch.Tensor = self.head(self.norm(x).mean(1))
        return scores


def mixer(channels: int, depth: int, size: int, patch: int) -> nn.Module:
    """An MLP-mixer for pictures of `size`²."""
    tokens = (size // patch) ** 2
    blocks = (MixerBlock(tokens, channels) for _ in range(depth))
    return nn.Sequential(Patches(channels, patch), *blocks, MeanOfTokens(channels))


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each behind a norm (Vaswani et al. 2017, pre-norm)."""

    def __init__(self, channels: int, heads: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), activation(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, tokens, channels] to the same."""
        n, tokens, channels = x.shape
        query, key, value = (
            part.reshape(n, tokens, self.heads, channels // self.heads).transpose(1, 2)
            for part in self.qkv(self.before(x)).chunk(3, -1)
        )
        attended = torch.softmax(query @ key.transpose(-2, -1) * (channels // self.heads) ** -0.5, -1) @ value
        x = x + self.out(attended.transpose(1, 2).reshape(n, tokens, channels))
        encoded: torch.Tensor = x + self.mlp(self.between(x))
        return encoded


def encoder(channels: int, depth: int, heads: int) -> nn.Module:
    """An encoder over agents' or lanes' features: float32 [1, tokens, 64]."""
    blocks = (EncoderBlock(channels, heads, nn.ReLU) for _ in range(depth))
    return nn.Sequential(nn.Linear(64, channels), *blocks, MeanOfTokens(channels, 24))


class ConvMixerBlock(nn.Module):
    """A large depthwise convolution with a skip, then a pointwise one (Trockman & Kolter 2022)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = conv(channels, channels, kernel, groups=channels, activation="gelu")
        self.pointwise = conv(channels, channels, 1, activation="gelu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] to the same."""
        mixed: torch.Tensor = self.pointwise(x + self.depthwise(x))
        return mixed


def conv_mixer(channels: int, depth: int, kernel: int, patch: int) -> nn.Module:
    """Patches, then blocks of one size."""
    blocks = (ConvMixerBlock(channels, kernel) for _ in range(depth))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 100))
    return nn.Sequential(nn.Conv2d(3, channels, patch, patch), nn.GELU(), *blocks, *head)
