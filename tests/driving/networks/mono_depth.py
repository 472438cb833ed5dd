"""Monocular depth with a skip decoder, back-projected to points by the camera matrix."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvBlock(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(inp, out, 3)
        self.nonlin = nn.ELU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlin(self.conv(self.pad(x)))


def upsample(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Encoder(nn.Module):
    def __init__(self, widths=(16, 32, 64, 96)) -> None:
        super().__init__()
        channels = (3, *widths)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inp, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
            for inp, out in zip(channels, widths, strict=False)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = []
        x = (image - 0.45) / 0.225
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class DepthDecoder(nn.Module):
    def __init__(self, widths=(16, 32, 64, 96), decoder=(16, 32, 48)) -> None:
        super().__init__()
        self.up2_0, self.up2_1 = ConvBlock(widths[3], decoder[2]), ConvBlock(decoder[2] + widths[2], decoder[2])
        self.up1_0, self.up1_1 = ConvBlock(decoder[2], decoder[1]), ConvBlock(decoder[1] + widths[1], decoder[1])
        self.up0_0, self.up0_1 = ConvBlock(decoder[1], decoder[0]), ConvBlock(decoder[0] + widths[0], decoder[0])
        self.dispconv = nn.Conv2d(decoder[0], 1, 3, padding=1)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = self.up2_1(torch.cat([upsample(self.up2_0(features[3])), features[2]], 1))
        x = self.up1_1(torch.cat([upsample(self.up1_0(x)), features[1]], 1))
        x = self.up0_1(torch.cat([upsample(self.up0_0(x)), features[0]], 1))
        return torch.sigmoid(self.dispconv(upsample(x)))


class MonoDepth(nn.Module):
    def __init__(self, size=(64, 96), min_depth: float = 0.1, max_depth: float = 100.0) -> None:
        super().__init__()
        self.min_depth, self.max_depth = min_depth, max_depth
        self.encoder, self.decoder = Encoder(), DepthDecoder()
        y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
        self.register_buffer("pix_coords", torch.stack([x, y, torch.ones_like(x)]).float().view(1, 3, -1))

    def disp_to_depth(self, disp: torch.Tensor) -> torch.Tensor:
        min_disp, max_disp = 1 / self.max_depth, 1 / self.min_depth
        return 1 / (min_disp + (max_disp - min_disp) * disp)

    def forward(self, image: torch.Tensor, inv_k: torch.Tensor):
        depth = self.disp_to_depth(self.decoder(self.encoder(image)))
        rays = torch.matmul(inv_k[:, :3, :3], self.pix_coords)
        points = depth.flatten(2) * rays
        return depth, points


def build():
    intrinsics = torch.tensor([[60.0, 0.0, 48.0], [0.0, 60.0, 32.0], [0.0, 0.0, 1.0]])
    return MonoDepth(), (torch.rand(1, 3, 64, 96), torch.inverse(intrinsics).unsqueeze(0))
