"""StreamPETR: queries that were sure in the last frame come back as memory, moved by the car's own motion."""

import torch
import torch.nn.functional as F
from torch import nn


def topk_gather(features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    view = indices.view(*indices.shape[:2], *([1] * (features.dim() - 2)))
    return torch.gather(features, 1, view.expand(-1, -1, *features.shape[2:]))


def transform_reference_points(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    return (pose.unsqueeze(1) @ homogeneous.unsqueeze(-1)).squeeze(-1)[..., :3]


class TemporalDecoderLayer(nn.Module):
    def __init__(self, dims: int, heads: int = 4) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(3))
        self.ffn = nn.Sequential(nn.Linear(dims, dims * 2), nn.ReLU(inplace=True), nn.Linear(dims * 2, dims))

    def forward(self, query, memory, temporal, query_pos):
        q = query + query_pos
        keys = torch.cat([q, temporal], dim=1)
        query = self.norms[0](query + self.self_attn(q, keys, torch.cat([query, temporal], dim=1))[0])
        query = self.norms[1](query + self.cross_attn(query + query_pos, memory, memory)[0])
        return self.norms[2](query + self.ffn(query))


class StreamPETR(nn.Module):
    def __init__(self, dims: int = 64, queries: int = 30, memory_len: int = 24, topk: int = 8) -> None:
        super().__init__()
        self.memory_len, self.topk_proposals = memory_len, topk
        self.img_backbone = nn.Sequential(
            nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Conv2d(32, dims, 3, 2, 1)
        )
        self.reference_points = nn.Embedding(queries, 3)
        self.query_embedding = nn.Sequential(nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, dims))
        self.layers = nn.ModuleList(TemporalDecoderLayer(dims) for _ in range(2))
        self.cls_branch, self.reg_branch = nn.Linear(dims, 10), nn.Linear(dims, 10)
        self.register_buffer("memory_embedding", torch.zeros(1, memory_len, dims))
        self.register_buffer("memory_reference_point", torch.zeros(1, memory_len, 3))
        dim_t = torch.arange(dims // 4, dtype=torch.float32)
        self.register_buffer("dim_t", 10000 ** (2 * dim_t / dims))

    def pos2embed(self, points: torch.Tensor) -> torch.Tensor:
        angles = points[..., :2, None] * 6.283 / self.dim_t
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)

    def pre_update_memory(self, prev_exists: torch.Tensor, ego_pose_inv: torch.Tensor) -> None:
        exists = prev_exists.view(-1, 1, 1)
        self.memory_reference_point = transform_reference_points(self.memory_reference_point, ego_pose_inv) * exists
        self.memory_embedding = self.memory_embedding * exists

    def post_update_memory(self, query: torch.Tensor, points: torch.Tensor, scores: torch.Tensor) -> None:
        _, indices = torch.topk(scores.sigmoid().max(dim=-1).values, self.topk_proposals, dim=1)
        embedding = torch.cat([topk_gather(query, indices), self.memory_embedding], dim=1)
        reference = torch.cat([topk_gather(points, indices), self.memory_reference_point], dim=1)
        self.memory_embedding = embedding[:, : self.memory_len]
        self.memory_reference_point = reference[:, : self.memory_len]

    def forward(self, image: torch.Tensor, prev_exists: torch.Tensor, ego_pose_inv: torch.Tensor):
        self.pre_update_memory(prev_exists, ego_pose_inv)
        memory = self.img_backbone(image).flatten(2).transpose(1, 2)
        reference = self.reference_points.weight.sigmoid().unsqueeze(0)
        query_pos = self.query_embedding(self.pos2embed(reference))
        query = torch.zeros_like(query_pos)
        for layer in self.layers:
            query = layer(query, memory, self.memory_embedding, query_pos)
        scores, boxes = self.cls_branch(query), self.reg_branch(query)
        centers = F.sigmoid(boxes[..., :3] + torch.logit(reference, eps=1e-5))
        self.post_update_memory(query, centers, scores)
        return scores, torch.cat([centers, boxes[..., 3:]], dim=-1)


def build():
    return StreamPETR(), (torch.randn(1, 3, 64, 128), torch.ones(1), torch.eye(4).unsqueeze(0))
