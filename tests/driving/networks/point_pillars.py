"""PointPillars: points in vertical columns, a small PointNet for each, scattered to a canvas for 2-D convolutions."""

import torch
import torch.nn.functional as F
from torch import nn


class PFNLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.linear(inputs)
        x = self.norm(x.permute(0, 2, 1)).permute(0, 2, 1)
        x = F.relu(x)
        return torch.max(x, dim=1, keepdim=True)[0]


class PillarVFE(nn.Module):
    def __init__(self, channels: int = 64, voxel=(0.5, 0.5), offset=(0.25, -7.75)) -> None:
        super().__init__()
        self.pfn = PFNLayer(9, channels)
        self.voxel, self.offset = voxel, offset

    def forward(self, voxels: torch.Tensor, num_points: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
        points_mean = voxels[:, :, :3].sum(dim=1, keepdim=True) / num_points.type_as(voxels).view(-1, 1, 1)
        f_cluster = voxels[:, :, :3] - points_mean
        f_center = torch.zeros_like(voxels[:, :, :2])
        f_center[:, :, 0] = voxels[:, :, 0] - (
            coords[:, 2].to(voxels.dtype).unsqueeze(1) * self.voxel[0] + self.offset[0]
        )
        f_center[:, :, 1] = voxels[:, :, 1] - (
            coords[:, 1].to(voxels.dtype).unsqueeze(1) * self.voxel[1] + self.offset[1]
        )
        features = torch.cat([voxels, f_cluster, f_center], dim=-1)
        mask = torch.arange(features.shape[1]).view(1, -1) < num_points.view(-1, 1)
        features = features * mask.unsqueeze(-1).type_as(features)
        return self.pfn(features).squeeze(1)


class PointPillarScatter(nn.Module):
    def __init__(self, channels: int = 64, ny: int = 32, nx: int = 32) -> None:
        super().__init__()
        self.channels, self.ny, self.nx = channels, ny, nx

    def forward(self, pillars: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
        batch_spatial_features = []
        batch_size = coords[:, 0].max().int().item() + 1
        for batch_idx in range(batch_size):
            spatial_feature = torch.zeros(self.channels, self.ny * self.nx, dtype=pillars.dtype)
            batch_mask = coords[:, 0] == batch_idx
            this_coords = coords[batch_mask, :]
            indices = this_coords[:, 1] * self.nx + this_coords[:, 2]
            spatial_feature[:, indices.long()] = pillars[batch_mask, :].t()
            batch_spatial_features.append(spatial_feature)
        return torch.stack(batch_spatial_features, 0).view(batch_size, self.channels, self.ny, self.nx)


class Backbone2D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            nn.ZeroPad2d(1),
            nn.Conv2d(64, 64, kernel_size=3, stride=2, bias=False),
            nn.BatchNorm2d(64, eps=1e-3),
            nn.ReLU(),
        )
        self.block2 = nn.Sequential(
            nn.ZeroPad2d(1),
            nn.Conv2d(64, 128, kernel_size=3, stride=2, bias=False),
            nn.BatchNorm2d(128, eps=1e-3),
            nn.ReLU(),
        )
        self.deblock1 = nn.Sequential(nn.ConvTranspose2d(64, 64, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.deblock2 = nn.Sequential(nn.ConvTranspose2d(128, 64, 2, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.block1(x)
        x2 = self.block2(x1)
        return torch.cat([self.deblock1(x1), self.deblock2(x2)], dim=1)


class AnchorHead(nn.Module):
    def __init__(self, anchors: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.conv_cls = nn.Conv2d(128, anchors * classes, kernel_size=1)
        self.conv_box = nn.Conv2d(128, anchors * 7, kernel_size=1)

    def forward(self, x: torch.Tensor):
        cls_preds = self.conv_cls(x).permute(0, 2, 3, 1).contiguous()
        box_preds = self.conv_box(x).permute(0, 2, 3, 1).contiguous()
        return cls_preds, box_preds


class PointPillars(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vfe, self.scatter = PillarVFE(), PointPillarScatter()
        self.backbone_2d, self.dense_head = Backbone2D(), AnchorHead()

    def forward(self, voxels: torch.Tensor, num_points: torch.Tensor, coords: torch.Tensor):
        pillars = self.vfe(voxels, num_points, coords)
        return self.dense_head(self.backbone_2d(self.scatter(pillars, coords)))


def build():
    cells = torch.randperm(1024)[:60]
    coords = torch.stack([torch.arange(60) // 30, cells // 32, cells % 32], 1)
    return PointPillars(), (torch.randn(60, 16, 4), torch.randint(1, 17, (60,)), coords)
