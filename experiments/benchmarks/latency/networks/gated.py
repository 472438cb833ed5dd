"""Networks of gates, narrow depthwise layers and small attention: int8 gains little in each of their layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.blocks import SqueezeExcite, classifier, conv, separable
from bitwright.experiments.benchmarks.latency.networks.compact import Added


class Refinement(nn.Module):
    """Channels times a gate of one layer from their means (BiSeNet, Yu et al. 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.features = conv(inputs, outputs)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(outputs, outputs, 1, activation="none"), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H, W]."""
        y = self.features(x)
        refined: torch.Tensor = y * self.gate(y)
        return refined


class Bilateral(nn.Module):
    """A path of details beside a deeper one, refined and fused by gates (BiSeNet, Yu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.detail = nn.Sequential(conv(3, w, 3, 2), conv(w, w, 3, 2), conv(w, 2 * w, 3, 2))
        self.third = nn.Sequential(*(separable(i, o, 2) for i, o in pairwise((3, w, 2 * w, 2 * w))))
        self.fourth, self.fifth = separable(2 * w, 4 * w, 2), separable(4 * w, 4 * w, 2)
        self.refine4, self.refine5 = Refinement(4 * w, 2 * w), Refinement(4 * w, 2 * w)
        self.up = nn.Upsample(scale_factor=2)
        self.fuse = nn.Sequential(conv(4 * w, 2 * w, 1), Added(SqueezeExcite(2 * w)))
        self.head = nn.Conv2d(2 * w, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to [N, 12, H / 8, W / 8]."""
        fourth = self.fourth(self.third(x))
        deep = self.up(self.refine4(fourth) + self.up(self.refine5(self.fifth(fourth))))
        scores: torch.Tensor = self.head(self.fuse(torch.cat([self.detail(x), deep], 1)))
        return scores


class ContextGuided(nn.Module):
    """Near and far neighbours by depthwise kernels, joined, gated by the whole picture (CGNet, Wu et al. 2018)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        half = width // 2
        self.reduce = conv(width, half, 1)
        self.near = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.far = nn.Conv2d(half, half, 3, padding=dilation, dilation=dilation, groups=half, bias=False)
        self.norm, self.gate = nn.BatchNorm2d(width), SqueezeExcite(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        y = self.reduce(x)
        y = torch.relu(self.norm(torch.cat([self.near(y), self.far(y)], 1)))
        guided: torch.Tensor = x + self.gate(y)
        return guided


def context_guided(width: int, depth: int) -> nn.Module:
    """Scores at an eighth of the picture's size."""
    layers: list[nn.Module] = [conv(3, width, 3, 2), *(ContextGuided(width, 2) for _ in range(depth))]
    layers += [conv(width, 2 * width, 3, 2), *(ContextGuided(2 * width, 4) for _ in range(depth))]
    return nn.Sequential(*layers, nn.Conv2d(2 * width, 19, 1))


class Landmarks(nn.Module):
    """A driver's face: inverted residuals, means of three levels read together (PFLD, Guo et al. 2019)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 2 * width]
        self.stem = nn.Sequential(conv(3, width, 3, 2), conv(width, width, groups=width))
        self.levels = nn.ModuleList(
            nn.Sequential(
                *self._inverted(inputs, outputs, 2),
                *(Added(*self._inverted(outputs, outputs, 1)) for _ in range(depth)),
            )
            for inputs, outputs in pairwise(widths)
        )
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.points = nn.Linear(sum(widths[1:]), 136)

    @staticmethod
    def _inverted(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        inner = 2 * inputs
        return [conv(inputs, inner, 1), conv(inner, inner, 3, stride, groups=inner),
                conv(inner, outputs, 1, activation="none")]  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] to 68 points, [N, 136]."""
        x = self.stem(x)
        means = []
        for level in self.levels:
            x = level(x)
            means.append(self.mean(x))
        points: torch.Tensor = self.points(torch.cat(means, 1))
        return points


class Blaze(nn.Module):
    """5×5 depthwise and pointwise beside a pooled skip with empty channels behind (Bazarevsky et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.more = outputs - inputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inputs, 5, stride, 2, groups=inputs), nn.Conv2d(inputs, outputs, 1)
        )
        self.skip = nn.MaxPool2d(2) if stride == 2 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        skip = self.skip(x)
        if self.more:
            skip = nn.functional.pad(skip, (0, 0, 0, 0, 0, self.more))
        return torch.relu(self.layers(x) + skip)


def blaze(width: int, depth: int) -> nn.Module:
    """Faces at two anchors of each place."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 5, 2, 2), nn.ReLU()]
    for inputs, outputs in pairwise((width, width + 8, 2 * width, 2 * width + 16)):
        layers += [*(Blaze(inputs, inputs, 1) for _ in range(depth)), Blaze(inputs, outputs, 2)]
    return nn.Sequential(*layers, nn.Conv2d(2 * width + 16, 34, 1))


class BlockAttention(nn.Module):
    """Gates of channels from means and maxima, then of places from both (CBAM, Woo et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width), conv(width, width, activation="none"))
        self.shared = nn.Sequential(nn.Conv2d(width, width // 4, 1), nn.ReLU(), nn.Conv2d(width // 4, width, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        y = self.body(x)
        means, most = self.shared(y.mean((2, 3), keepdim=True)), self.shared(y.amax((2, 3), keepdim=True))
        y = y * torch.sigmoid(means + most)
        places = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return torch.relu(x + y * torch.sigmoid(self.place(places)))


def block_attention(width: int, depth: int) -> nn.Module:
    """Two stages."""
    first, second = ([BlockAttention(each) for _ in range(depth)] for each in (width, 2 * width))
    return nn.Sequential(conv(3, width), *first, conv(width, 2 * width, 3, 2), *second, classifier(2 * width))


class OmniScale(nn.Module):
    """Streams of one to three light 3×3 layers, gated by one shared gate, added (OSNet, Zhou et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.enter, self.leave = conv(width, inner, 1), conv(inner, width, 1, activation="none")
        self.streams = nn.ModuleList(nn.Sequential(*(self._light(inner) for _ in range(depth))) for depth in (1, 2, 3))
        self.gate = SqueezeExcite(inner)

    @staticmethod
    def _light(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, width, 1, bias=False), conv(width, width, groups=width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        y = self.enter(x)
        first, second, third = (self.gate(stream(y)) for stream in self.streams)
        return torch.relu(x + self.leave(first + second + third))


def omni_scale(width: int, depth: int) -> nn.Module:
    """A vehicle's features from a small picture."""
    first, second = ([OmniScale(each) for _ in range(depth)] for each in (width, 2 * width))
    pool = nn.AvgPool2d(2)
    return nn.Sequential(
        conv(3, width, 3, 2), *first, conv(width, 2 * width, 1), pool, *second, classifier(2 * width, 128)
    )


class Broadcast(nn.Module):
    """Along frequencies in full, along time on their mean, which is added to all (BC-ResNet, Kim et al. 2021)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.across = nn.Sequential(nn.Conv2d(width, width, (3, 1), padding=(1, 0), groups=width, bias=False),
                                    nn.BatchNorm2d(width))  # fmt: skip
        self.along = nn.Sequential(
            nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=width, bias=False),
            nn.BatchNorm2d(width), nn.SiLU(), nn.Conv2d(width, width, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x: [N, C, frequencies, time]."""
        y = self.across(x)
        return torch.relu(x + y + self.along(y.mean(2, keepdim=True)))


def broadcasted(width: int, depth: int) -> nn.Module:
    """Twelve spoken commands."""
    stem = nn.Sequential(nn.Conv2d(1, width, 5, (2, 1), 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    first, second = ([Broadcast(each, 1 << i % 3) for i in range(depth)] for each in (width, 2 * width))
    down = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.AvgPool2d((2, 1)))
    return nn.Sequential(stem, *first, down, *second, classifier(2 * width, 12))


class CoordinateGates(nn.Module):
    """Gates of rows and of columns, each from the other's means (Hou et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, width // 4)
        self.shared = conv(width, inner, 1, activation="hardswish")
        self.rows, self.columns = nn.Conv2d(inner, width, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        height, width = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
        rows, columns = torch.split(self.shared(both), [height, width], 2)
        gated: torch.Tensor = x * torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.transpose(2, 3)))
        return gated


def coordinate_gates(width: int, depth: int) -> nn.Module:
    """Depthwise layers with coordinate gates."""
    layers: list[nn.Module] = [conv(3, width, 3, 2)]
    for _ in range(depth):
        layers.append(Added(conv(width, width, groups=width), CoordinateGates(width), nn.Conv2d(width, width, 1)))
    return nn.Sequential(*layers, classifier(width))


class PyramidAttention(nn.Module):
    """Three kernels' features, weighed against each other by gates (EPSANet, Zhang et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // 4
        self.branches = nn.ModuleList(
            nn.Conv2d(width, part, kernel, padding=kernel // 2, groups=groups, bias=False)
            for kernel, groups in ((3, 1), (5, 4), (7, 4))
        )
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(part, max(4, part // 4), 1), nn.ReLU(),
            nn.Conv2d(max(4, part // 4), part, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.leave = nn.Conv2d(3 * part, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as x."""
        made = [branch(x) for branch in self.branches]
        weights = torch.softmax(torch.stack([self.weigh(each) for each in made], 1), 1)
        joined = torch.cat([each * weights[:, i] for i, each in enumerate(made)], 1)
        return torch.relu(x + self.leave(joined))


def pyramid_attention(width: int, depth: int) -> nn.Module:
    """Pyramids of gated kernels."""
    return nn.Sequential(conv(3, width, 3, 2), *(PyramidAttention(width) for _ in range(depth)), classifier(width))


class Look(nn.Module):
    """Attention of one head from some tokens to others, with a skip and a norm behind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.leave = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.scale = nn.LayerNorm(width), width**-0.5

    def forward(self, y: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """float32 [N, queries, width] and [N, tokens, width] to the shape of the first."""
        scores = torch.softmax(self.query(y) @ self.key(seen).transpose(1, 2) * self.scale, -1)
        looked: torch.Tensor = self.norm(y + torch.relu(self.leave(scores @ self.value(seen))))
        return looked


class LatentQueries(nn.Module):
    """A few learned queries look at all agents, then at each other (Wayformer, Nayakanti et al. 2022)."""

    def __init__(self, width: int, queries: int, depth: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, width))
        self.embed, self.paths = nn.Linear(32, width), nn.Linear(width, 48)
        self.looks = nn.ModuleList(Look(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, agents, 32] to a path of each query, [N, queries, 48]."""
        y, seen = self.queries, self.embed(x)
        for look in self.looks:
            y = seen = look(y, seen)
        paths: torch.Tensor = self.paths(y)
        return paths
