"""A mixture of experts in a world model: tokens are sent to the experts that the router picked for them."""

import torch
import torch.nn.functional as F
from torch import nn


class Expert(nn.Module):
    def __init__(self, dims: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (
            nn.Linear(dims, hidden, bias=False),
            nn.Linear(hidden, dims, bias=False),
            nn.Linear(dims, hidden, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class SparseMoe(nn.Module):
    def __init__(self, dims: int, experts: int = 4, topk: int = 2) -> None:
        super().__init__()
        self.topk = topk
        self.gate = nn.Linear(dims, experts, bias=False)
        self.experts = nn.ModuleList(Expert(dims, 2 * dims) for _ in range(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        weights, selected = torch.topk(self.gate(x), self.topk)
        weights = F.softmax(weights, dim=1, dtype=torch.float).to(x.dtype)
        results = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            token, nth = torch.where(selected == i)
            if token.numel() == 0:
                continue
            results[token] += weights[token, nth, None] * expert(x[token])
        return results.view(shape)


class Attention(nn.Module):
    def __init__(self, dims: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dims, 3 * dims, bias=False), nn.Linear(dims, dims, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class RMSNorm(nn.Module):
    def __init__(self, dims: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dims)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Block(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.attention, self.moe = Attention(dims), SparseMoe(dims)
        self.norm1, self.norm2 = RMSNorm(dims), RMSNorm(dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.moe(self.norm2(x))


class MoePlanner(nn.Module):
    def __init__(self, dims: int = 64, tokens: int = 24, waypoints: int = 8) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.GELU(), nn.Conv2d(32, dims, 2, 2))
        self.position = nn.Parameter(torch.randn(1, tokens, dims) * 0.02)
        self.blocks = nn.ModuleList(Block(dims) for _ in range(2))
        self.norm, self.head = RMSNorm(dims), nn.Linear(dims, waypoints * 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1])).unflatten(-1, (-1, 3))


def build():
    return MoePlanner(), (torch.randn(1, 3, 64, 96),)
