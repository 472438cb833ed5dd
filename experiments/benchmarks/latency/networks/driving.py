"""Networks of cars: lanes, radar, point clouds, occupancy, agents' paths, traffic signs; published designs, small."""

from __future__ import annotations

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import Residual, conv, separable
from bitwright.experiments.benchmarks.latency.networks.compact import Beside


def lane_rows(width: int, hidden: int, height: int) -> nn.Module:
    """For each of 18 rows the cell of 25 where each of 4 lanes is (Qin et al. 2020); pictures of `height` × 2.5."""
    backbone = [conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1), Residual(width, width), Residual(width, 2 * width, 2)]
    cells = 8 * (height // 16) * (height * 5 // 32)
    head = [nn.Flatten(), nn.Linear(cells, hidden), nn.ReLU(), nn.Linear(hidden, 18 * 26 * 4)]
    return nn.Sequential(*backbone, Residual(2 * width, 4 * width, 2), nn.Conv2d(4 * width, 8, 1), *head,
                         nn.Unflatten(1, (26, 18, 4)))  # fmt: skip


class RangeDoppler(nn.Module):
    """Radar: convolutions along Doppler and range; then channels become angles (FFT-RadNet, Rebut et al. 2022)."""

    def __init__(self, width: int, angles: int, doppler: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(8, width, (1, 5), padding=(0, 2)), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, (5, 1), (2, 1), (2, 0)), nn.BatchNorm2d(width), nn.ReLU(),
            Residual(width, width), conv(width, angles, 1),
        )  # fmt: skip
        self.decode = nn.Sequential(conv(doppler, width), conv(width, width), nn.Conv2d(width, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 8, ranges, Doppler] to [N, 3, ranges / 2, angles]."""
        found: torch.Tensor = self.decode(self.encode(x).transpose(1, 3))
        return found


class PillarFeatures(nn.Module):
    """Each pillar's points through one perceptron, their maximum as a cell of the grid (Lang et al. 2019)."""

    def __init__(self, width: int, side: int, points: int, depth: int) -> None:
        super().__init__()
        self.side = side
        self.each = nn.Sequential(conv(9, width, 1), nn.MaxPool2d((1, points)))
        blocks = [separable(width, width) for _ in range(depth)]
        self.grid = nn.Sequential(*blocks, conv(width, 2 * width, 3, 2), separable(2 * width, 2 * width))
        self.head = nn.Conv2d(2 * width, 18, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 9, side², points] to [N, 18, side / 2, side / 2]."""
        cells = self.each(x)
        found: torch.Tensor = self.head(self.grid(cells.reshape(*cells.shape[:2], self.side, self.side)))
        return found


def occupancy(width: int, heights: int) -> nn.Module:
    """A bird's-eye view, enlarged, its channels read as heights (FlashOcc, Yu et al. 2023); 5 classes of cells."""
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    layers = [conv(24, width), Residual(width, 2 * width, 2), Residual(2 * width, 2 * width), up]
    return nn.Sequential(*layers, conv(2 * width, width), nn.Conv2d(width, 5 * heights, 1),
                         nn.Unflatten(1, (5, heights)), nn.Softmax(1))  # fmt: skip


class Polylines(nn.Module):
    """Lanes and paths as polylines: points see their line's maximum, lines see each other (Gao et al. 2020)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        inputs = [8] + [2 * width] * (depth - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(each, width), nn.LayerNorm(width), nn.ReLU()) for each in inputs
        )
        self.query, self.key, self.value = (nn.Linear(2 * width, width) for _ in range(3))
        self.path = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 60))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, lines, points, 8] to thirty positions of each line, [N, lines, 60]."""
        for layer in self.layers:
            each = layer(x)
            x = torch.cat([each, each.amax(2, keepdim=True).expand_as(each)], -1)
        lines = x.amax(2)
        scores = self.query(lines) @ self.key(lines).transpose(1, 2) * self.query.out_features**-0.5
        paths: torch.Tensor = self.path(torch.softmax(scores, -1) @ self.value(lines))
        return paths


class RangeImages(nn.Module):
    """Labels of a spinning lidar's picture, narrowed along its width alone (SqueezeSeg, Wu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width

        def fire(inputs: int, outputs: int) -> nn.Module:
            each = Beside(conv(outputs // 4, outputs // 2, 1), conv(outputs // 4, outputs // 2))
            return nn.Sequential(conv(inputs, outputs // 4, 1), each)

        def narrow() -> nn.Module:
            return nn.MaxPool2d(3, (1, 2), 1)

        def widen(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, (1, 4), (1, 2), (0, 1)), nn.ReLU())

        self.first = nn.Sequential(nn.Conv2d(5, w, 3, (1, 2), 1), nn.ReLU())
        self.second = nn.Sequential(narrow(), fire(w, 2 * w), fire(2 * w, 2 * w))
        self.third = nn.Sequential(narrow(), fire(2 * w, 4 * w), fire(4 * w, 4 * w))
        self.up3, self.up2, self.up1 = widen(4 * w, 2 * w), widen(2 * w, w), widen(w, w)
        self.head = nn.Conv2d(w, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 5, rows, columns] to scores [N, 4, rows, columns]."""
        first = self.first(x)
        second = self.second(first)
        labels: torch.Tensor = self.head(self.up1(self.up2(self.up3(self.third(second)) + second) + first))
        return labels


class TrafficSigns(nn.Module):
    """Both stages' features side by side before the classifier (Sermanet & LeCun 2011)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.past = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
        self.classify = nn.Sequential(nn.Linear(49 * width + 50 * width, hidden), nn.ReLU(), nn.Linear(hidden, 43))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, 32, 32] to scores [N, 43]."""
        first = self.first(x)
        features = torch.cat([self.past(first), torch.flatten(self.second(first), 1)], 1)
        scores: torch.Tensor = self.classify(features)
        return scores


class AnchorHeads(nn.Module):
    """Boxes and classes at four anchors of each place on three levels, all in one list (Liu et al. 2016, separable)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stem = nn.Sequential(conv(3, width, 3, 2, activation="relu6"), separable(width, width, 2))
        self.levels = nn.ModuleList(
            separable(inputs, outputs, 2, activation="relu6")
            for inputs, outputs in zip([width, *widths], widths, strict=False)
        )
        self.boxes = nn.ModuleList(self._head(each, 4) for each in widths)
        self.classes = nn.ModuleList(self._head(each, classes) for each in widths)

    @staticmethod
    def _head(inputs: int, values: int) -> nn.Module:
        return nn.Sequential(conv(inputs, inputs, groups=inputs, activation="relu6"), nn.Conv2d(inputs, 4 * values, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [N, 3, H, W] to boxes [N, anchors, 4] and probabilities [N, anchors, classes]."""
        x = self.stem(x)
        boxes, classes = [], []
        for level, box, kind in zip(self.levels, self.boxes, self.classes, strict=True):
            x = level(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(1, -1, 4))
            classes.append(kind(x).permute(0, 2, 3, 1).reshape(1, boxes[-1].shape[1], -1))
        return torch.cat(boxes, 1), torch.softmax(torch.cat(classes, 1), -1)
