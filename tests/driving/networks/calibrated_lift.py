"""Bird's-eye points projected into the cameras through their 4x4 calibration; image features are sampled there."""

import torch
import torch.nn.functional as F
from torch import nn


class ImageEncoder(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, channels, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.conv3(x)


class SimpleBEV(nn.Module):
    def __init__(self, bev=(24, 24), heights=(-1.0, 0.0, 1.0, 2.0), reach: float = 12.0, channels: int = 32) -> None:
        super().__init__()
        self.bev, self.channels, self.count = bev, channels, len(heights)
        self.encoder = ImageEncoder(channels)
        y, x = torch.meshgrid(
            torch.linspace(-reach, reach, bev[0]), torch.linspace(-reach, reach, bev[1]), indexing="ij"
        )
        layers = [torch.stack([x, y, torch.full_like(x, z), torch.ones_like(x)], -1) for z in heights]
        self.register_buffer("points", torch.stack(layers).view(-1, 4))
        self.compress = nn.Sequential(
            nn.Conv2d(channels * len(heights), 64, 3, padding=1, bias=False), nn.InstanceNorm2d(64), nn.GELU()
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.Conv2d(64, 1, 1)
        )

    def project(self, cam_to_ego: torch.Tensor, intrinsics: torch.Tensor, size: tuple[int, int]):
        ego_to_cam = torch.inverse(cam_to_ego)
        projection = intrinsics @ ego_to_cam
        points = (projection.unsqueeze(2) @ self.points.unsqueeze(-1)).squeeze(-1)
        depth = points[..., 2:3]
        pixels = points[..., :2] / depth.clamp(min=1e-5)
        normalized = pixels / pixels.new_tensor([size[1], size[0]]) * 2.0 - 1.0
        valid = (depth > 0.1) & (normalized.abs() <= 1.0).all(-1, keepdim=True)
        return normalized, valid

    def forward(self, images: torch.Tensor, cam_to_ego: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
        batch, cameras = images.shape[:2]
        features = self.encoder(images.flatten(0, 1))
        grid, valid = self.project(cam_to_ego, intrinsics, images.shape[-2:])
        grid = grid.flatten(0, 1).unsqueeze(2)
        sampled = F.grid_sample(features, grid, align_corners=False).squeeze(-1)
        sampled = sampled.view(batch, cameras, self.channels, -1)
        mask = valid.squeeze(-1).unsqueeze(2).to(sampled.dtype)
        fused = (sampled * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        bev = fused.view(batch, self.channels * self.count, *self.bev)
        return self.decoder(self.compress(bev))


def build():
    intrinsics = torch.eye(4)
    intrinsics[:2, :3] = torch.tensor([[60.0, 0.0, 48.0], [0.0, 60.0, 32.0]])
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    stack = (pose.expand(1, 3, 4, 4).contiguous(), intrinsics.expand(1, 3, 4, 4).contiguous())
    return SimpleBEV(), (torch.randn(1, 3, 3, 64, 96), *stack)
