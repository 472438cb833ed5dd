"""Conditional imitation learning: the driving command decides which branch of the network steers."""

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    def __init__(self, inp: int, out: int, kernel: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inp, out, kernel, stride, kernel // 2), nn.BatchNorm2d(out), nn.Dropout2d(0.2), nn.ReLU()
        )


class Perception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvBlock(3, 32, 5, 2),
            ConvBlock(32, 32, 3, 1),
            ConvBlock(32, 64, 3, 2),
            ConvBlock(64, 64, 3, 1),
            ConvBlock(64, 128, 3, 2),
        )
        self.fc = nn.Sequential(nn.Linear(128 * 8 * 16, 256), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.convs(image).flatten(1))


class Branch(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(320, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steer, throttle, brake = self.net(x).unbind(-1)
        return torch.stack([steer.tanh(), throttle.sigmoid(), brake.sigmoid()], -1)


class ConditionalPlanner(nn.Module):
    FOLLOW, LEFT, RIGHT, STRAIGHT = range(4)

    def __init__(self) -> None:
        super().__init__()
        self.perception = Perception()
        self.measurements = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.branches = nn.ModuleList(Branch() for _ in range(4))
        self.speed_head = nn.Linear(256, 1)

    def forward(self, image: torch.Tensor, speed: torch.Tensor, command: torch.Tensor):
        features = self.perception(image)
        joined = torch.cat([features, self.measurements(speed)], dim=1)
        control = self.branches[0](joined)
        if command != self.FOLLOW:
            control = self.branches[int(command)](joined)
        if speed.item() < 0.1:
            control = control * torch.tensor([1.0, 1.0, 0.0])
        return control, self.speed_head(features)


def build():
    return ConditionalPlanner(), (torch.randn(1, 3, 64, 128), torch.tensor([[0.5]]), torch.tensor(2))
