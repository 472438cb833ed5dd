"""MapTR: map elements as ordered points; instance and point embeddings form hierarchical queries."""

import torch
from torch import nn


def inverse_sigmoid(x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class DecoupledSelfAttention(nn.Module):
    """Attention among the points of an instance, then among instances at one point."""

    def __init__(self, dims: int, heads: int, instances: int, points: int) -> None:
        super().__init__()
        self.instances, self.points = instances, points
        self.intra = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.inter = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, dims = x.shape
        x = x.view(batch * self.instances, self.points, dims)
        x = self.norm1(x + self.intra(x, x, x, need_weights=False)[0])
        x = x.view(batch, self.instances, self.points, dims).permute(0, 2, 1, 3).flatten(0, 1)
        x = self.norm2(x + self.inter(x, x, x, need_weights=False)[0])
        return x.view(batch, self.points, self.instances, dims).transpose(1, 2).flatten(1, 2)


class MapDecoderLayer(nn.Module):
    def __init__(self, dims: int, heads: int, instances: int, points: int) -> None:
        super().__init__()
        self.self_attn = DecoupledSelfAttention(dims, heads, instances, points)
        self.cross_attn = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.ffn = nn.Sequential(nn.Linear(dims, 2 * dims), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * dims, dims))

    def forward(self, query, query_pos, bev, bev_pos):
        query = self.self_attn(query + query_pos)
        query = self.norm1(query + self.cross_attn(query + query_pos, bev + bev_pos, bev, need_weights=False)[0])
        return self.norm2(query + self.ffn(query))


class MapTRHead(nn.Module):
    def __init__(self, dims: int = 64, instances: int = 10, points: int = 8, classes: int = 3, bev=(16, 24)) -> None:
        super().__init__()
        self.instances, self.points = instances, points
        self.bev_embed = nn.Sequential(nn.Conv2d(32, dims, 3, 2, 1, bias=False), nn.BatchNorm2d(dims), nn.ReLU())
        self.row_embed, self.col_embed = nn.Embedding(bev[0], dims // 2), nn.Embedding(bev[1], dims // 2)
        self.instance_embedding = nn.Embedding(instances, dims * 2)
        self.pts_embedding = nn.Embedding(points, dims * 2)
        self.reference_points = nn.Linear(dims, 2)
        self.layers = nn.ModuleList(MapDecoderLayer(dims, 4, instances, points) for _ in range(2))
        self.cls_branch = nn.Sequential(nn.Linear(dims, dims), nn.LayerNorm(dims), nn.ReLU(), nn.Linear(dims, classes))
        self.reg_branch = nn.Sequential(nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, 2))

    def positional(self, height: int, width: int) -> torch.Tensor:
        x, y = self.col_embed(torch.arange(width)), self.row_embed(torch.arange(height))
        pos = torch.cat((x.unsqueeze(0).repeat(height, 1, 1), y.unsqueeze(1).repeat(1, width, 1)), dim=-1)
        return pos.flatten(0, 1).unsqueeze(0)

    def forward(self, bev: torch.Tensor):
        bev = self.bev_embed(bev)
        batch, _, height, width = bev.shape
        bev_pos = self.positional(height, width)
        bev = bev.flatten(2).permute(0, 2, 1)
        queries = self.pts_embedding.weight.unsqueeze(0) + self.instance_embedding.weight.unsqueeze(1)
        query_pos, query = queries.flatten(0, 1).unsqueeze(0).expand(batch, -1, -1).chunk(2, dim=-1)
        reference = self.reference_points(query_pos).sigmoid()
        for layer in self.layers:
            query = layer(query, query_pos, bev, bev_pos)
            reference = (self.reg_branch(query) + inverse_sigmoid(reference)).sigmoid()
        per_instance = query.view(batch, self.instances, self.points, -1).mean(2)
        lines = reference.view(batch, self.instances, self.points, 2)
        return self.cls_branch(per_instance), lines


def build():
    return MapTRHead(), (torch.randn(1, 32, 32, 48),)
