"""TransFusion: heat-map peaks become queries that attend to lidar features, then to the camera's."""

import torch
import torch.nn.functional as F
from torch import nn


class PositionEmbeddingLearned(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(2, dims, kernel_size=1), nn.BatchNorm1d(dims), nn.ReLU(inplace=True), nn.Conv1d(dims, dims, 1)
        )

    def forward(self, xyz: torch.Tensor) -> torch.Tensor:
        return self.position_embedding_head(xyz.transpose(1, 2).contiguous())


class TransformerDecoderLayer(nn.Module):
    def __init__(self, dims: int, heads: int = 4) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = nn.MultiheadAttention(dims, heads), nn.MultiheadAttention(dims, heads)
        self.linear1, self.linear2 = nn.Linear(dims, 2 * dims), nn.Linear(2 * dims, dims)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dims), nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.query_pos, self.key_pos = PositionEmbeddingLearned(dims), PositionEmbeddingLearned(dims)

    def forward(self, query, key, query_pos, key_pos):
        query_pos = self.query_pos(query_pos).permute(2, 0, 1)
        key_pos = self.key_pos(key_pos).permute(2, 0, 1)
        query, key = query.permute(2, 0, 1), key.permute(2, 0, 1)
        q = query + query_pos
        query = self.norm1(query + self.self_attn(q, q, value=query)[0])
        attended = self.multihead_attn(query=query + query_pos, key=key + key_pos, value=key)[0]
        query = self.norm2(query + attended)
        query = self.norm3(query + self.linear2(F.relu(self.linear1(query))))
        return query.permute(1, 2, 0)


class TransFusion(nn.Module):
    def __init__(self, dims: int = 64, proposals: int = 24, classes: int = 4, bev=(24, 24)) -> None:
        super().__init__()
        self.proposals, self.classes = proposals, classes
        self.lidar = nn.Sequential(nn.Conv2d(32, dims, 3, 1, 1, bias=False), nn.BatchNorm2d(dims), nn.ReLU())
        self.camera = nn.Sequential(
            nn.Conv2d(3, 32, 3, 4, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, dims, 3, 2, 1)
        )
        self.heatmap_head = nn.Sequential(nn.Conv2d(dims, dims, 3, padding=1), nn.ReLU(), nn.Conv2d(dims, classes, 1))
        self.class_encoding = nn.Conv1d(classes, dims, 1)
        self.decoder_lidar, self.decoder_camera = TransformerDecoderLayer(dims), TransformerDecoderLayer(dims)
        self.prediction = nn.Sequential(
            nn.Conv1d(dims, dims, 1), nn.BatchNorm1d(dims), nn.ReLU(), nn.Conv1d(dims, 10, 1)
        )
        self.register_buffer("bev_pos", self.create_2d_grid(*bev))
        self.register_buffer("image_pos", self.create_2d_grid(8, 12))

    @staticmethod
    def create_2d_grid(rows: int, columns: int) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        return torch.stack([x, y], -1).view(1, -1, 2)

    def forward(self, points_bev: torch.Tensor, image: torch.Tensor):
        lidar = self.lidar(points_bev)
        heatmap = self.heatmap_head(lidar).sigmoid()
        peaks = F.max_pool2d(heatmap, kernel_size=3, stride=1, padding=1)
        heatmap = (heatmap * (heatmap == peaks)).flatten(2)
        flat = lidar.flatten(2)
        top = heatmap.flatten(1).argsort(dim=-1, descending=True)[..., : self.proposals]
        label = top // heatmap.shape[-1]
        index = top % heatmap.shape[-1]
        query = flat.gather(index=index[:, None, :].expand(-1, flat.shape[1], -1), dim=-1)
        one_hot = F.one_hot(label, num_classes=self.classes).permute(0, 2, 1)
        query = query + self.class_encoding(one_hot.float())
        query_pos = self.bev_pos.gather(index=index[:, :, None].expand(-1, -1, 2), dim=1)
        query = self.decoder_lidar(query, flat, query_pos, self.bev_pos)
        query = self.decoder_camera(query, self.camera(image).flatten(2), query_pos, self.image_pos)
        return self.prediction(query), label


def build():
    return TransFusion(), (torch.randn(1, 32, 24, 24), torch.randn(1, 3, 64, 96))
