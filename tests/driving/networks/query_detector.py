"""A query-based detector whose number of queries follows the scene: as many as the heat map has confident peaks."""

import torch
import torch.nn.functional as F
from torch import nn


class DecoderLayer(nn.Module):
    def __init__(self, dims: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dims, 3 * dims)
        self.q, self.kv, self.proj = nn.Linear(dims, dims), nn.Linear(dims, 2 * dims), nn.Linear(dims, dims)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dims), nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.ffn = nn.Sequential(nn.Linear(dims, 4 * dims), nn.GELU(), nn.Linear(4 * dims, dims))

    def attend(self, q, k, v):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5)
        return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)

    def forward(self, x, memory):
        x = x + self.attend(*self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.proj(self.attend(self.q(self.norm2(x)), *self.kv(memory).chunk(2, dim=-1)))
        return x + self.ffn(self.norm3(x))


class BevBackbone(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.Conv2d(64, 128, 3, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True))
        self.mix = nn.Sequential(nn.Conv2d(128, dims, 3, 1, 1, bias=False), nn.BatchNorm2d(dims), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.mix(self.down(self.stem(x)))


class QueryDetector(nn.Module):
    def __init__(self, dims: int = 64, classes: int = 4, threshold: float = 0.6, max_queries: int = 64) -> None:
        super().__init__()
        self.threshold, self.max_queries = threshold, max_queries
        self.backbone = BevBackbone(dims)
        self.heatmap = nn.Conv2d(dims, classes, 3, padding=1)
        self.class_encoding = nn.Linear(classes, dims)
        self.layers = nn.ModuleList(DecoderLayer(dims) for _ in range(2))
        self.box_head = nn.Sequential(nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, 8))

    def forward(self, bev: torch.Tensor):
        features = self.backbone(bev)
        heat = self.heatmap(features).sigmoid()
        flat = heat.flatten(2).amax(1)
        num_queries = int((flat > self.threshold).sum(-1).max().item())
        num_queries = max(1, min(num_queries, self.max_queries))
        scores, index = flat.topk(num_queries, dim=-1)
        memory = features.flatten(2).transpose(1, 2)
        query = memory.gather(1, index.unsqueeze(-1).expand(-1, -1, memory.shape[-1]))
        label = heat.flatten(2).argmax(1).gather(1, index)
        query = query + self.class_encoding(F.one_hot(label, heat.shape[1]).to(query.dtype))
        for layer in self.layers:
            query = layer(query, memory)
        return self.box_head(query), scores


def build():
    return QueryDetector(), (torch.randn(1, 8, 32, 32),)
