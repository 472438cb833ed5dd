"""Motion forecasting over polylines, MTR-style: only valid points go through the layers, results are written back."""

import torch
from torch import nn


def build_mlps(inp: int, mid: list[int], norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for out in mid:
        layers += [nn.Linear(inp, out, bias=not norm), nn.BatchNorm1d(out) if norm else nn.Identity(), nn.ReLU()]
        inp = out
    return nn.Sequential(*layers)


class PointNetPolylineEncoder(nn.Module):
    def __init__(self, inp: int, hidden: int, out: int) -> None:
        super().__init__()
        self.pre_mlps = build_mlps(inp, [hidden])
        self.mlps = build_mlps(hidden * 2, [hidden, hidden])
        self.out_mlps = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.hidden = hidden

    def forward(self, polylines: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, lines, points, _ = polylines.shape
        valid = self.pre_mlps(polylines[mask])
        feature = polylines.new_zeros(batch, lines, points, self.hidden)
        feature[mask] = valid
        pooled = feature.max(dim=2)[0]
        feature = torch.cat((feature, pooled[:, :, None, :].repeat(1, 1, points, 1)), dim=-1)
        valid = self.mlps(feature[mask])
        buffers = feature.new_zeros(batch, lines, points, self.hidden)
        buffers[mask] = valid
        buffers = buffers.max(dim=2)[0]
        return self.out_mlps(buffers)


class MotionForecaster(nn.Module):
    def __init__(self, dims: int = 64, modes: int = 6, steps: int = 12) -> None:
        super().__init__()
        self.modes, self.steps = modes, steps
        self.agent_polyline_encoder = PointNetPolylineEncoder(10, 64, dims)
        self.map_polyline_encoder = PointNetPolylineEncoder(7, 64, dims)
        layer = nn.TransformerEncoderLayer(dims, 4, 4 * dims, 0.1, batch_first=True, norm_first=True)
        self.context = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.mode_query = nn.Embedding(modes, dims)
        self.cross = nn.MultiheadAttention(dims, 4, batch_first=True)
        self.trajectory, self.score = nn.Linear(dims, steps * 5), nn.Linear(dims, 1)

    def forward(self, agents: torch.Tensor, agent_mask: torch.Tensor, roads: torch.Tensor, road_mask: torch.Tensor):
        agent_feature = self.agent_polyline_encoder(agents, agent_mask)
        road_feature = self.map_polyline_encoder(roads, road_mask)
        tokens = torch.cat([agent_feature, road_feature], dim=1)
        padding = torch.cat([~agent_mask.any(-1), ~road_mask.any(-1)], dim=1)
        tokens = self.context(tokens, src_key_padding_mask=padding)
        query = self.mode_query.weight.unsqueeze(0) + tokens[:, :1]
        query = self.cross(query, tokens, tokens, key_padding_mask=padding)[0]
        trajectory = self.trajectory(query).view(-1, self.modes, self.steps, 5)
        return trajectory, self.score(query).squeeze(-1).softmax(-1)


def build():
    agent_mask, road_mask = torch.rand(1, 8, 11) > 0.3, torch.rand(1, 24, 10) > 0.2
    agent_mask[:, :, 0], road_mask[:, :, 0] = True, True
    return MotionForecaster(), (torch.randn(1, 8, 11, 10), agent_mask, torch.randn(1, 24, 10, 7), road_mask)
