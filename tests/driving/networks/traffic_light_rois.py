"""Traffic lights: boxes from the detector are cropped out of the picture and classified one by one."""

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class Proposer(nn.Module):
    def __init__(self, k: int = 4) -> None:
        super().__init__()
        self.k = k
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            ResBlock(64),
        )
        self.score, self.size = nn.Conv2d(64, 1, 1), nn.Conv2d(64, 2, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(image)
        scores = self.score(features).sigmoid().flatten(1)
        values, index = scores.topk(self.k, dim=1)
        width = features.shape[-1]
        centers = torch.stack([index % width, torch.div(index, width, rounding_mode="floor")], -1) * 4.0
        sizes = self.size(features).flatten(2).transpose(1, 2).gather(1, index.unsqueeze(-1).expand(-1, -1, 2))
        return torch.cat([centers, 8.0 + 8.0 * sizes.sigmoid()], -1), values


class LightClassifier(nn.Module):
    def __init__(self, states: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.body = nn.Sequential(ResBlock(32), nn.MaxPool2d(2), ResBlock(32))
        self.fc = nn.Linear(32, states)

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(self.stem(crop)).mean([2, 3]))


class TrafficLights(nn.Module):
    def __init__(self, crop_size: int = 32) -> None:
        super().__init__()
        self.crop_size = crop_size
        self.proposer, self.classifier = Proposer(), LightClassifier()

    def forward(self, image: torch.Tensor):
        boxes, scores = self.proposer(image)
        height, width = image.shape[-2:]
        states = []
        for box in boxes[0]:
            cx, cy, w, h = box.tolist()
            x0, x1 = max(int(cx - w), 0), min(int(cx + w), width)
            y0, y1 = max(int(cy - h), 0), min(int(cy + h), height)
            crop = image[:, :, y0:y1, x0:x1]
            crop = F.interpolate(crop, size=(self.crop_size, self.crop_size), mode="bilinear", align_corners=False)
            states.append(self.classifier(crop))
        return torch.cat(states), boxes, scores


def build():
    return TrafficLights(), (torch.randn(1, 3, 96, 128),)
