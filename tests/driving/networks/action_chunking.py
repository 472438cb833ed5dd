"""A robot's policy: two cameras and the joints give a chunk of actions; overlapping chunks are averaged over time."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class CameraBackbone(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 7, 2, 3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.input_proj = nn.Conv2d(64, dims, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.input_proj(self.body(image))


def sine_embedding(dims: int, height: int, width: int) -> torch.Tensor:
    y, x = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
    scale = torch.exp(torch.arange(dims // 4).float() * (-math.log(10000.0) / (dims // 4)))
    rows = (y[..., None] * scale).expand(height, width, -1)
    columns = (x[..., None] * scale).expand(height, width, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], -1).flatten(0, 1)


class ActTransformer(nn.Module):
    def __init__(self, dims: int = 64, chunk: int = 10, joints: int = 14) -> None:
        super().__init__()
        self.backbone = CameraBackbone(dims)
        self.proprio, self.latent_out = nn.Linear(joints, dims), nn.Linear(16, dims)
        self.register_buffer("position", sine_embedding(dims, 6, 16))
        encoder = nn.TransformerEncoderLayer(dims, 4, 2 * dims, dropout=0.1, batch_first=True)
        decoder = nn.TransformerDecoderLayer(dims, 4, 2 * dims, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, 1)
        self.query_embed = nn.Embedding(chunk, dims)
        self.action_head, self.is_pad_head = nn.Linear(dims, joints), nn.Linear(dims, 1)

    def forward(self, qpos: torch.Tensor, images: torch.Tensor):
        batch, cameras = images.shape[:2]
        features = torch.cat([self.backbone(images[:, camera]) for camera in range(cameras)], dim=3)
        tokens = features.flatten(2).transpose(1, 2) + self.position
        latent = self.latent_out(torch.zeros(batch, 16))
        source = torch.cat([latent.unsqueeze(1), self.proprio(qpos).unsqueeze(1), tokens], dim=1)
        memory = self.encoder(source)
        hidden = self.decoder(self.query_embed.weight.unsqueeze(0).expand(batch, -1, -1), memory)
        return self.action_head(hidden), self.is_pad_head(hidden)


class ActPolicy(nn.Module):
    def __init__(self, chunk: int = 10, joints: int = 14, decay: float = 0.01) -> None:
        super().__init__()
        self.model, self.decay = ActTransformer(chunk=chunk, joints=joints), decay
        self.past_chunks: list[torch.Tensor] = []
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", mean.view(1, 1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 1, 3, 1, 1))

    def forward(self, qpos: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        chunk, _ = self.model(qpos, (images - self.mean) / self.std)
        self.past_chunks.append(chunk)
        self.past_chunks = self.past_chunks[-chunk.shape[1] :]
        candidates = [past[:, age] for age, past in enumerate(reversed(self.past_chunks))]
        weights = F.softmax(-self.decay * torch.arange(len(candidates)).float().flip(0), dim=0)
        return (torch.stack(candidates, 1) * weights[None, :, None]).sum(1)


def build():
    return ActPolicy(), (torch.randn(1, 14), torch.rand(1, 2, 3, 48, 64))
