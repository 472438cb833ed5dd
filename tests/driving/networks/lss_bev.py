"""Lift, splat, shoot: per-pixel depth distributions lifted along the rays and summed into bird's-eye-view cells."""

import torch
import torch.nn.functional as F
from torch import nn


def gen_dx_bx(xbound, ybound, zbound):
    dx = torch.tensor([row[2] for row in (xbound, ybound, zbound)])
    bx = torch.tensor([row[0] + row[2] / 2.0 for row in (xbound, ybound, zbound)])
    nx = [int((row[1] - row[0]) / row[2]) for row in (xbound, ybound, zbound)]
    return dx, bx, nx


class CamEncode(nn.Module):
    def __init__(self, depth_bins: int, channels: int) -> None:
        super().__init__()
        self.D, self.C = depth_bins, channels
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.depthnet = nn.Conv2d(64, depth_bins + channels, kernel_size=1, padding=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthnet(self.trunk(x))
        depth = x[:, : self.D].softmax(dim=1)
        return depth.unsqueeze(1) * x[:, self.D : (self.D + self.C)].unsqueeze(2)


class BevEncode(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(64, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + self.layer1(x)
        return self.head(self.up(x))


class LiftSplatShoot(nn.Module):
    def __init__(self, image_size=(64, 96), downsample: int = 4, channels: int = 16) -> None:
        super().__init__()
        self.dx, self.bx, self.nx = gen_dx_bx([-16.0, 16.0, 1.0], [-16.0, 16.0, 1.0], [-10.0, 10.0, 20.0])
        depths = torch.arange(4.0, 20.0, 1.0)
        self.image_size, self.downsample, self.channels = image_size, downsample, channels
        self.register_buffer("frustum", self.create_frustum(depths))
        self.camencode = CamEncode(len(depths), channels)
        self.bevencode = BevEncode(channels, 2)

    def create_frustum(self, depths: torch.Tensor) -> torch.Tensor:
        height, width = self.image_size
        rows, columns = height // self.downsample, width // self.downsample
        ds = depths.view(-1, 1, 1).expand(-1, rows, columns)
        xs = torch.linspace(0, width - 1, columns).view(1, 1, columns).expand(len(depths), rows, columns)
        ys = torch.linspace(0, height - 1, rows).view(1, rows, 1).expand(len(depths), rows, columns)
        return torch.stack((xs, ys, ds), -1)

    def get_geometry(self, rots: torch.Tensor, trans: torch.Tensor, intrins: torch.Tensor) -> torch.Tensor:
        points = self.frustum[None, None].expand(*trans.shape[:2], -1, -1, -1, -1)
        points = torch.cat((points[..., :2] * points[..., 2:3], points[..., 2:3]), -1)
        combine = rots.matmul(torch.inverse(intrins))
        points = combine.view(*trans.shape[:2], 1, 1, 1, 3, 3).matmul(points.unsqueeze(-1)).squeeze(-1)
        return points + trans.view(*trans.shape[:2], 1, 1, 1, 3)

    def voxel_pooling(self, geometry: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        batch = features.shape[0]
        features = features.reshape(-1, self.channels)
        cells = ((geometry - (self.bx - self.dx / 2.0)) / self.dx).long().view(-1, 3)
        batch_index = torch.arange(batch).view(-1, 1).expand(batch, len(cells) // batch).reshape(-1)
        inside = ((cells >= 0) & (cells < torch.tensor(self.nx))).all(-1)
        flat = (batch_index * self.nx[0] + cells[:, 0].clamp(0, self.nx[0] - 1)) * self.nx[1]
        flat = flat + cells[:, 1].clamp(0, self.nx[1] - 1)
        canvas = features.new_zeros(batch * self.nx[0] * self.nx[1], self.channels)
        canvas = canvas.index_add(0, flat, features * inside.unsqueeze(-1))
        return canvas.view(batch, self.nx[0], self.nx[1], self.channels).permute(0, 3, 1, 2)

    def forward(self, x: torch.Tensor, rots: torch.Tensor, trans: torch.Tensor, intrins: torch.Tensor) -> torch.Tensor:
        batch, cameras = x.shape[:2]
        geometry = self.get_geometry(rots, trans, intrins)
        features = self.camencode(x.flatten(0, 1))
        features = features.view(batch, cameras, *features.shape[1:]).permute(0, 1, 3, 4, 5, 2)
        return self.bevencode(self.voxel_pooling(geometry, features))


def build():
    intrins = torch.tensor([[60.0, 0.0, 48.0], [0.0, 60.0, 32.0], [0.0, 0.0, 1.0]]).expand(1, 2, 3, 3).contiguous()
    rots = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]).expand(1, 2, 3, 3).contiguous()
    return LiftSplatShoot(), (torch.randn(1, 2, 3, 64, 96), rots, torch.zeros(1, 2, 3), intrins)
