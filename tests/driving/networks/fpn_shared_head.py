"""FCOS over a feature pyramid: one head for all levels, a learned scale for each."""

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inp: int, mid: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inp, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


class FPN(nn.Module):
    def __init__(self, channels: list[int], out: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, out, 1) for c in channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in channels)
        self.extra = nn.Conv2d(out, out, 3, 2, 1)

    def forward(self, feats: list[torch.Tensor]) -> list[torch.Tensor]:
        laterals = [conv(f) for conv, f in zip(self.lateral_convs, feats, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size=size, mode="nearest")
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]
        outs.append(self.extra(F.relu(outs[-1])))
        return outs


class Scale(nn.Module):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class FCOSHead(nn.Module):
    def __init__(self, channels: int = 64, classes: int = 10, levels: int = 4) -> None:
        super().__init__()
        self.cls_convs = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.ReLU())
        self.reg_convs = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.ReLU())
        self.conv_cls = nn.Conv2d(channels, classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(channels, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale(1.0) for _ in range(levels))

    def forward_single(self, x: torch.Tensor, scale: Scale):
        cls_feat, reg_feat = self.cls_convs(x), self.reg_convs(x)
        bbox_pred = scale(self.conv_reg(reg_feat)).float()
        bbox_pred = bbox_pred.exp()
        return self.conv_cls(cls_feat), bbox_pred, self.conv_centerness(reg_feat)

    def forward(self, feats: list[torch.Tensor]):
        return [self.forward_single(f, scale) for f, scale in zip(feats, self.scales, strict=True)]


class FCOS(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.layer2 = Bottleneck(32, 32, 64, 2)
        self.layer3 = Bottleneck(64, 48, 128, 2)
        self.layer4 = Bottleneck(128, 64, 256, 2)
        self.neck = FPN([64, 128, 256], 64)
        self.bbox_head = FCOSHead()

    def forward(self, x: torch.Tensor):
        c3 = self.layer2(self.stem(x))
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return self.bbox_head(self.neck([c3, c4, c5]))


def build():
    return FCOS(), (torch.randn(1, 3, 128, 160),)
