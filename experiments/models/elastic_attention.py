"""A transformer encoder for pictures (Dosovitskiy et al. 2021, arXiv:2010.11929) that may average tokens half-way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Attention(nn.Module):
    """Heads of a fixed size, so that a network with fewer of them has smaller matrices and the same softmax."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.query = nn.Linear(width, heads * head_size)
        self.key = nn.Linear(width, heads * head_size)
        self.value = nn.Linear(width, heads * head_size)
        self.out = nn.Linear(heads * head_size, width)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], self.heads, self.head_size).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, tokens, width] to the same shape."""
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        y: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """Attention and two linear layers, each behind a layer norm and beside a skip."""

    def __init__(self, width: int, heads: int, head_size: int, inner: int) -> None:
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), Attention(width, heads, head_size)
        self.norm_2 = nn.LayerNorm(width)
        self.widen, self.act, self.narrow = nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, tokens, width] to the same shape."""
        x = x + self.attention(self.norm_1(x))
        y: torch.Tensor = x + self.narrow(self.act(self.widen(self.norm_2(x))))
        return y


class TransformerEncoder(nn.Module):
    """Patches become tokens, blocks mix them, their mean is classified.

    From the middle block on, runs of neighbouring tokens are one, their average, as many as `tokens` says (Dai et al.
    2020, Funnel-Transformer, arXiv:2006.03236).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: Sequence[int],
        inner: Sequence[int],
        head_size: int,
        tokens: float,
        patch: int,
        size: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2, width))
        self.blocks = nn.Sequential(
            *(Block(width, own, head_size, wide) for own, wide in zip(heads, inner, strict=True))
        )
        averaged = round(1 / tokens)
        self.pool = nn.AvgPool1d(averaged) if averaged > 1 else nn.Identity()
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, size, size] to logits [N, classes]."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for index, block in enumerate(self.blocks):
            if index == len(self.blocks) // 2:
                x = self.pool(x.transpose(1, 2)).transpose(1, 2)
            x = block(x)
        logits: torch.Tensor = self.classifier(self.norm(x).mean(1))
        return logits
