"""A diffusion planner: a transformer denoises a trajectory in a few deterministic steps, given the scene."""

import math

import torch
from torch import nn


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        half = self.dim // 2
        emb = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        emb = t[:, None] * emb[None, :]
        return torch.cat((emb.sin(), emb.cos()), dim=-1)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class DiTBlock(nn.Module):
    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))
        self.norm3 = nn.LayerNorm(dim)
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x, scene, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        h = modulate(self.norm1(x), shift_a, scale_a)
        x = x + gate_a.unsqueeze(1) * self.attn(h, h, h)[0]
        x = x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_m, scale_m))
        return x + self.cross(self.norm3(x), scene, scene)[0]


class Denoiser(nn.Module):
    def __init__(self, horizon: int, dim: int = 64) -> None:
        super().__init__()
        self.inp = nn.Linear(4, dim)
        self.pos = nn.Parameter(torch.randn(1, horizon, dim) * 0.02)
        self.time = nn.Sequential(SinusoidalPosEmb(dim), nn.Linear(dim, dim), nn.Mish(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(DiTBlock(dim) for _ in range(2))
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4))

    def forward(self, x, t, scene):
        c = self.time(t)
        x = self.inp(x) + self.pos
        for block in self.blocks:
            x = block(x, scene, c)
        return self.out(x)


class DiffusionPlanner(nn.Module):
    def __init__(self, horizon: int = 16, steps: int = 3, dim: int = 64) -> None:
        super().__init__()
        self.steps = steps
        self.scene_encoder = nn.Sequential(nn.Linear(32, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim))
        self.model = Denoiser(horizon, dim)
        betas = torch.linspace(1e-4, 0.2, 100)
        self.register_buffer("alphas_cumprod", torch.cumprod(1.0 - betas, dim=0))

    def forward(self, scene: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        scene = self.scene_encoder(scene)
        x = noise
        for i in reversed(range(self.steps)):
            step = i * 99 // self.steps
            t = torch.full((x.shape[0],), float(step))
            alpha = self.alphas_cumprod[step]
            previous = self.alphas_cumprod[max(step - 99 // self.steps, 0)]
            eps = self.model(x, t, scene)
            x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
            x0 = x0.clamp(-1.0, 1.0)
            x = previous.sqrt() * x0 + (1 - previous).sqrt() * eps
        return x


def build():
    return DiffusionPlanner(), (torch.randn(1, 20, 32), torch.randn(1, 16, 4))
