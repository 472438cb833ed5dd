"""Occupancy: bird's-eye features lifted to heights, refined by 3-D convolutions, a semantic label for each voxel."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvModule3d(nn.Module):
    def __init__(self, inp: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inp, out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm3d(out)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class Residual3d(nn.Module):
    def __init__(self, inp: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvModule3d(inp, out, stride)
        self.conv2 = nn.Sequential(nn.Conv3d(out, out, 3, 1, 1, bias=False), nn.BatchNorm3d(out))
        self.down = None
        if stride != 1 or inp != out:
            self.down = nn.Sequential(nn.Conv3d(inp, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.down is None else self.down(x)
        return F.relu(self.conv2(self.conv1(x)) + identity)


class FPN3d(nn.Module):
    def __init__(self, channels=(16, 32), out: int = 16) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv3d(c, out, 1) for c in channels)
        self.fuse = ConvModule3d(out * len(channels), out)

    def forward(self, feats):
        size = feats[0].shape[2:]
        up = [
            F.interpolate(conv(x), size=size, mode="trilinear", align_corners=False)
            for conv, x in zip(self.lateral, feats, strict=True)
        ]
        return self.fuse(torch.cat(up, dim=1))


class OccupancyHead(nn.Module):
    def __init__(self, channels: int = 16, classes: int = 18) -> None:
        super().__init__()
        self.final_conv = ConvModule3d(channels, channels)
        self.predicter = nn.Sequential(
            nn.Linear(channels, channels * 2), nn.Softplus(), nn.Linear(channels * 2, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.final_conv(x).permute(0, 4, 3, 2, 1)
        return self.predicter(x)


class OccNet(nn.Module):
    def __init__(self, heights: int = 8) -> None:
        super().__init__()
        self.heights = heights
        self.bev = nn.Sequential(nn.Conv2d(32, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True))
        self.layer1, self.layer2 = Residual3d(16, 16), Residual3d(16, 32, 2)
        self.neck, self.head = FPN3d(), OccupancyHead()

    def forward(self, bev: torch.Tensor):
        bev = self.bev(bev)
        batch, channels, height, width = bev.shape
        voxels = bev.view(batch, channels // self.heights, self.heights, height, width)
        x1 = self.layer1(voxels)
        x2 = self.layer2(x1)
        occupancy = self.head(self.neck([x1, x2]))
        return occupancy, occupancy.softmax(-1).argmax(-1)


def build():
    return OccNet(), (torch.randn(1, 32, 24, 24),)
