"""SECOND without sparse kernels: dense 3-D convolutions over voxels, height folded into channels, a 2-D neck."""

import torch
from torch import nn


def post_act_block(inp, out, kernel, stride=1, padding=0):
    return nn.Sequential(
        nn.Conv3d(inp, out, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(out, eps=1e-3, momentum=0.01),
        nn.ReLU(),
    )


class VoxelBackbone8x(nn.Module):
    def __init__(self, inp: int = 4) -> None:
        super().__init__()
        self.conv_input = post_act_block(inp, 16, 3, padding=1)
        self.conv1 = post_act_block(16, 16, 3, padding=1)
        self.conv2 = post_act_block(16, 32, 3, stride=2, padding=1)
        self.conv3 = post_act_block(32, 64, 3, stride=2, padding=1)
        self.conv_out = post_act_block(64, 64, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(self.conv_input(x))
        x = self.conv3(self.conv2(x))
        return self.conv_out(x)


class HeightCompression(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, d, h, w = x.shape
        return x.view(n, c * d, h, w)


class MeanVFE(nn.Module):
    def __init__(self, grid=(8, 32, 32)) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, points: torch.Tensor, voxel_index: torch.Tensor) -> torch.Tensor:
        cells = self.grid[0] * self.grid[1] * self.grid[2]
        index = voxel_index.unsqueeze(-1).expand(-1, points.shape[-1])
        sums = torch.zeros(cells, points.shape[-1]).scatter_add(0, index, points)
        counts = torch.zeros(cells).scatter_add(0, voxel_index, torch.ones_like(points[:, 0]))
        mean = sums / counts.clamp(min=1.0).unsqueeze(-1)
        return mean.t().reshape(1, -1, *self.grid)


class Neck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.deblock = nn.Sequential(nn.ConvTranspose2d(64, 64, 2, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deblock(self.blocks(x))


class VoxelNet(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.vfe, self.backbone_3d = MeanVFE(), VoxelBackbone8x()
        self.map_to_bev, self.neck = HeightCompression(), Neck(64)
        self.shared_conv = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.cls, self.box, self.direction = nn.Conv2d(64, classes, 1), nn.Conv2d(64, 7, 1), nn.Conv2d(64, 2, 1)

    def forward(self, points: torch.Tensor, voxel_index: torch.Tensor):
        x = self.shared_conv(self.neck(self.map_to_bev(self.backbone_3d(self.vfe(points, voxel_index)))))
        return self.cls(x), self.box(x), self.direction(x)


def build():
    return VoxelNet(), (torch.randn(500, 4), torch.randint(0, 8 * 32 * 32, (500,)))
