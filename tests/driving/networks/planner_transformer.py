"""A vectorised planner: the ego query attends to agents and map, one trajectory for each driving command."""

import torch
import torch.nn.functional as F
from torch import nn


class PolylineEncoder(nn.Module):
    def __init__(self, inp: int, dims: int) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.Linear(inp, dims), nn.LayerNorm(dims), nn.ReLU())
        self.post = nn.Sequential(nn.Linear(2 * dims, dims), nn.LayerNorm(dims), nn.ReLU())

    def forward(self, polylines: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.pre(polylines).masked_fill(~mask.unsqueeze(-1), float("-inf"))
        pooled = x.amax(dim=2, keepdim=True)
        pooled = torch.where(pooled.isinf(), torch.zeros_like(pooled), pooled)
        x = torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x))
        x = self.post(torch.cat([x, pooled.expand_as(x)], dim=-1))
        return x.max(dim=2).values


class InteractionLayer(nn.Module):
    def __init__(self, dims: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(dims, dims), nn.Linear(dims, 2 * dims)
        self.out = nn.Linear(dims, dims)
        self.norm1, self.norm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.mlp = nn.Sequential(nn.Linear(dims, 4 * dims), nn.GELU(), nn.Linear(4 * dims, dims))

    def forward(self, query: torch.Tensor, context: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        batch, count, dims = query.shape
        q = self.q(self.norm1(query)).view(batch, count, self.heads, -1).transpose(1, 2)
        k, v = self.kv(context).chunk(2, dim=-1)
        k = k.view(batch, -1, self.heads, dims // self.heads).transpose(1, 2)
        v = v.view(batch, -1, self.heads, dims // self.heads).transpose(1, 2)
        bias = torch.zeros_like(padding, dtype=q.dtype).masked_fill(padding, -1e9)[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        query = query + self.out(attended.transpose(1, 2).reshape(batch, count, dims))
        return query + self.mlp(self.norm2(query))


class Planner(nn.Module):
    def __init__(self, dims: int = 64, steps: int = 6, commands: int = 3) -> None:
        super().__init__()
        self.steps, self.commands = steps, commands
        self.agent_encoder, self.map_encoder = PolylineEncoder(6, dims), PolylineEncoder(4, dims)
        self.ego_encoder = nn.Sequential(nn.Linear(9, dims), nn.ReLU(), nn.Linear(dims, dims))
        self.agent_map = InteractionLayer(dims)
        self.ego_agent, self.ego_map = InteractionLayer(dims), InteractionLayer(dims)
        self.agent_head = nn.Linear(dims, steps * 2)
        self.ego_head = nn.Sequential(nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, commands * steps * 2))

    def forward(self, ego, agents, agent_mask, lanes, lane_mask, command):
        agent_feat = self.agent_encoder(agents, agent_mask)
        lane_feat = self.map_encoder(lanes, lane_mask)
        agent_pad, lane_pad = ~agent_mask.any(-1), ~lane_mask.any(-1)
        agent_feat = self.agent_map(agent_feat, lane_feat, lane_pad)
        query = self.ego_encoder(ego).unsqueeze(1)
        query = self.ego_agent(query, agent_feat, agent_pad)
        query = self.ego_map(query, lane_feat, lane_pad)
        plans = self.ego_head(query).view(-1, self.commands, self.steps, 2)
        chosen = (plans * F.one_hot(command, self.commands)[:, :, None, None]).sum(1)
        return chosen.cumsum(dim=1), self.agent_head(agent_feat).unflatten(-1, (self.steps, 2))


def build():
    agent_mask = torch.rand(1, 12, 10) > 0.2
    lane_mask = torch.rand(1, 20, 16) > 0.1
    args = (torch.randn(1, 9), torch.randn(1, 12, 10, 6), agent_mask, torch.randn(1, 20, 16, 4), lane_mask)
    return Planner(), (*args, torch.tensor([1]))
