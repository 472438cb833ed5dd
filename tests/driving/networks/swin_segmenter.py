"""Shifted windows for semantic segmentation: attention within windows, patch merging, a small convolutional head."""

import torch
import torch.nn.functional as F
from torch import nn


def window_partition(x: torch.Tensor, size: int) -> torch.Tensor:
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, channels)


def window_reverse(windows: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    x = windows.view(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


class WindowAttention(nn.Module):
    def __init__(self, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads) * 0.02)
        coords = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0) + size - 1
        self.register_buffer("relative_position_index", relative[..., 0] * (2 * size - 1) + relative[..., 1])
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(windows, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * self.scale, qkv[1], qkv[2]
        attn = q @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(tokens, tokens, -1)
        attn = attn + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            attn = attn.view(-1, mask.shape[0], self.heads, tokens, tokens) + mask.unsqueeze(1).unsqueeze(0)
            attn = attn.view(-1, self.heads, tokens, tokens)
        return self.proj((attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(windows, tokens, channels))


class SwinBlock(nn.Module):
    def __init__(self, dim: int, resolution, size: int = 4, shift: int = 0, heads: int = 4) -> None:
        super().__init__()
        self.resolution, self.size, self.shift = resolution, size, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, size, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.register_buffer("attn_mask", self.make_mask() if shift else None)

    def make_mask(self) -> torch.Tensor:
        regions = torch.zeros(1, *self.resolution, 1)
        spans = (slice(0, -self.size), slice(-self.size, -self.shift), slice(-self.shift, None))
        for number, (rows, columns) in enumerate((r, c) for r in spans for c in spans):
            regions[:, rows, columns] = number
        windows = window_partition(regions, self.size).squeeze(-1)
        different = windows.unsqueeze(1) != windows.unsqueeze(2)
        return torch.zeros(different.shape).masked_fill(different, -100.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.resolution
        shortcut = x
        x = self.norm1(x).view(x.shape[0], height, width, -1)
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        x = window_reverse(self.attn(window_partition(x, self.size), self.attn_mask), self.size, height, width)
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        x = shortcut + x.flatten(1, 2)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int, resolution) -> None:
        super().__init__()
        self.resolution = resolution
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.shape[0], *self.resolution, -1)
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(parts, -1).flatten(1, 2)))


class SwinSegmenter(nn.Module):
    def __init__(self, dim: int = 32, size=(64, 96), classes: int = 19) -> None:
        super().__init__()
        grid = (size[0] // 4, size[1] // 4)
        half = (grid[0] // 2, grid[1] // 2)
        self.grid, self.half = grid, half
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.stage1 = nn.Sequential(SwinBlock(dim, grid), SwinBlock(dim, grid, shift=2))
        self.merge = PatchMerging(dim, grid)
        self.stage2 = nn.Sequential(SwinBlock(2 * dim, half), SwinBlock(2 * dim, half, shift=2))
        self.fuse = nn.Sequential(nn.Conv2d(3 * dim, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(64, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x1 = self.stage1(self.patch_embed(image).flatten(2).transpose(1, 2))
        x2 = self.stage2(self.merge(x1))
        low = x1.transpose(1, 2).unflatten(2, self.grid)
        high = x2.transpose(1, 2).unflatten(2, self.half)
        high = F.interpolate(high, size=self.grid, mode="bilinear", align_corners=False)
        logits = self.classifier(self.fuse(torch.cat([low, high], 1)))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def build():
    return SwinSegmenter(), (torch.randn(1, 3, 64, 96),)
