"""Deformable DETR's encoder as the papers' repositories write it: level sizes travel as a tensor."""

import torch
import torch.nn.functional as F
from torch import nn


def ms_deform_attn_core_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights):
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    value_list = value.split([int(h * w) for h, w in value_spatial_shapes], dim=1)
    sampling_grids = 2 * sampling_locations - 1
    sampled = []
    for level, (height, width) in enumerate(value_spatial_shapes):
        value_l = value_list[level].flatten(2).transpose(1, 2).reshape(batch * heads, channels, height, width)
        grid_l = sampling_grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(value_l, grid_l, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1).view(batch, heads * channels, queries)
    return output.transpose(1, 2).contiguous()


class MSDeformAttn(nn.Module):
    def __init__(self, d_model: int = 64, levels: int = 2, heads: int = 4, points: int = 4) -> None:
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(d_model, heads * levels * points * 2)
        self.attention_weights = nn.Linear(d_model, heads * levels * points)
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)

    def forward(self, query, reference_points, input_flatten, spatial_shapes):
        batch, queries, _ = query.shape
        value = self.value_proj(input_flatten).view(batch, input_flatten.shape[1], self.heads, -1)
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(batch, queries, self.heads, self.levels * self.points)
        weights = F.softmax(weights, -1).view(batch, queries, self.heads, self.levels, self.points)
        normalizer = torch.stack([spatial_shapes[..., 1], spatial_shapes[..., 0]], -1)
        locations = reference_points[:, :, None, :, None, :] + offsets / normalizer[None, None, None, :, None, :]
        return self.output_proj(ms_deform_attn_core_pytorch(value, spatial_shapes, locations, weights))


class EncoderLayer(nn.Module):
    def __init__(self, d_model: int = 64) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.ffn = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model))

    def forward(self, src, pos, reference_points, spatial_shapes):
        src = self.norm1(src + self.self_attn(src + pos, reference_points, src, spatial_shapes))
        return self.norm2(src + self.ffn(src))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 4, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.stage3 = nn.Sequential(nn.Conv2d(64, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU(inplace=True))
        self.stage4 = nn.Sequential(nn.Conv2d(96, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU(inplace=True))

    def forward(self, x):
        c3 = self.stage3(self.stem(x))
        return [c3, self.stage4(c3)]


class DeformableDETR(nn.Module):
    def __init__(self, d_model: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, d_model, 1), nn.GroupNorm(8, d_model)) for c in (96, 128)
        )
        self.level_embed = nn.Parameter(torch.randn(2, d_model))
        self.layers = nn.ModuleList(EncoderLayer(d_model) for _ in range(2))
        self.class_embed, self.bbox_embed = nn.Linear(d_model, classes), nn.Linear(d_model, 4)

    def forward(self, image: torch.Tensor):
        sources = [proj(f) for proj, f in zip(self.input_proj, self.backbone(image), strict=True)]
        spatial_shapes = torch.as_tensor([s.shape[-2:] for s in sources], dtype=torch.long)
        src = torch.cat([s.flatten(2).transpose(1, 2) for s in sources], 1)
        pos = torch.cat(
            [self.level_embed[i].expand(s.shape[0], s.shape[2] * s.shape[3], -1) for i, s in enumerate(sources)], 1
        )
        reference_points = self.get_reference_points(spatial_shapes)
        for layer in self.layers:
            src = layer(src, pos, reference_points, spatial_shapes)
        return self.class_embed(src), self.bbox_embed(src).sigmoid()

    @staticmethod
    def get_reference_points(spatial_shapes):
        points = []
        for height, width in spatial_shapes:
            ref_y, ref_x = torch.meshgrid(
                torch.linspace(0.5, height - 0.5, height), torch.linspace(0.5, width - 0.5, width), indexing="ij"
            )
            points.append(torch.stack((ref_x.reshape(-1) / width, ref_y.reshape(-1) / height), -1))
        return torch.cat(points)[None, :, None].expand(-1, -1, len(points), -1)


def build():
    return DeformableDETR(), (torch.randn(1, 3, 96, 128),)
