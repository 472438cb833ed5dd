"""Many tasks on one mobile backbone: squeeze-and-excite, hard-swish, a drivable-area decoder and two classifiers."""

import torch
import torch.nn.functional as F
from torch import nn


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = F.relu(self.fc1(scale))
        scale = F.hardsigmoid(self.fc2(scale))
        return scale * x


class InvertedResidual(nn.Module):
    def __init__(self, inp: int, mid: int, out: int, stride: int, use_se: bool, activation: type[nn.Module]) -> None:
        super().__init__()
        self.use_res = stride == 1 and inp == out
        layers: list[nn.Module] = [nn.Conv2d(inp, mid, 1, bias=False), nn.BatchNorm2d(mid), activation(inplace=True)]
        layers += [
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False),
            nn.BatchNorm2d(mid),
            activation(inplace=True),
        ]
        if use_se:
            layers.append(SqueezeExcite(mid))
        layers += [nn.Conv2d(mid, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.use_res else self.block(x)


class SegDecoder(nn.Module):
    def __init__(self, low: int, high: int, classes: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(nn.Conv2d(high, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, 32, 1, bias=False), nn.Sigmoid())
        self.low_classifier, self.high_classifier = nn.Conv2d(low, classes, 1), nn.Conv2d(32, classes, 1)

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        x = self.cbr(high) * self.scale(high)
        x = F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return self.low_classifier(low) + self.high_classifier(x)


class MultiTaskNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        self.stage1 = InvertedResidual(16, 48, 24, 2, False, nn.ReLU)
        self.stage2 = InvertedResidual(24, 72, 40, 2, True, nn.ReLU)
        self.stage3 = nn.Sequential(
            InvertedResidual(40, 120, 48, 2, True, nn.Hardswish), InvertedResidual(48, 144, 48, 1, True, nn.Hardswish)
        )
        self.drivable = SegDecoder(24, 48, 3)
        self.weather = nn.Sequential(nn.Linear(48, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, 5))
        self.light = nn.Sequential(nn.Linear(48, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        low = self.stage1(self.stem(x))
        high = self.stage3(self.stage2(low))
        area = F.interpolate(self.drivable(low, high), size=x.shape[-2:], mode="bilinear", align_corners=False)
        pooled = high.mean([2, 3])
        return {"drivable": area, "weather": self.weather(pooled), "light": self.light(pooled)}


def build():
    return MultiTaskNet(), (torch.randn(1, 3, 96, 160),)
