"""Tracking by a recurrent cell: detections are matched to tracks greedily, matched tracks update their state."""

import torch
import torch.nn.functional as F
from torch import nn


class CropEncoder(nn.Module):
    def __init__(self, dims: int = 64) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 3, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
        )
        self.fc = nn.Linear(128, dims)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.fc(self.conv(crops).mean((2, 3))), dim=-1)


class MotionModel(nn.Module):
    def __init__(self, dims: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(7, dims), nn.ReLU(inplace=True))
        self.gru = nn.GRUCell(2 * dims, dims)
        self.predict = nn.Linear(dims, 7)

    def forward(self, boxes: torch.Tensor, appearance: torch.Tensor, hidden: torch.Tensor):
        hidden = self.gru(torch.cat([self.embed(boxes), appearance], dim=-1), hidden)
        return hidden, boxes + self.predict(hidden)


class GruTracker(nn.Module):
    def __init__(self, tracks: int = 8, dims: int = 64, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.encoder, self.motion = CropEncoder(dims), MotionModel(dims)
        self.affinity = nn.Sequential(nn.Linear(2 * dims, dims), nn.ReLU(), nn.Linear(dims, 1))
        self.register_buffer("hidden", torch.zeros(tracks, dims))
        self.register_buffer("age", torch.zeros(tracks, dtype=torch.int64))

    def match(self, scores: torch.Tensor) -> list[tuple[int, int]]:
        pairs: list[tuple[int, int]] = []
        scores = scores.clone()
        for _ in range(min(scores.shape)):
            best = scores.argmax().item()
            track, detection = divmod(best, scores.shape[1])
            if scores[track, detection] < self.threshold:
                break
            pairs.append((track, detection))
            scores[track, :] = -1e9
            scores[:, detection] = -1e9
        return pairs

    def forward(self, crops: torch.Tensor, boxes: torch.Tensor):
        appearance = self.encoder(crops)
        tracks, detections = self.hidden.shape[0], appearance.shape[0]
        grid = torch.cat(
            [
                self.hidden[:, None].expand(-1, detections, -1),
                appearance[None].expand(tracks, -1, -1),
            ],
            dim=-1,
        )
        scores = self.affinity(grid).squeeze(-1)
        assigned = torch.zeros(tracks, dtype=torch.long)
        for track, detection in self.match(scores):
            assigned[track] = detection
            self.age[track] += 1
        self.hidden, predicted = self.motion(boxes[assigned], appearance[assigned], self.hidden)
        return predicted, scores


def build():
    return GruTracker(), (torch.randn(6, 3, 32, 32), torch.randn(6, 7))
