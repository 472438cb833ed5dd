"""CenterNet in bird's-eye view: heat map peaks by max pooling, top-k decoding by gather."""

import torch
import torch.nn.functional as F
from torch import nn


class IDAUp(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(inp, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(out, out, 4, stride=2, padding=1, groups=out, bias=False)
        self.node = nn.Sequential(nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.node(self.up(self.proj(x)) + skip)


class SeparateHead(nn.Module):
    def __init__(self, channels: int, heads: dict[str, int]) -> None:
        super().__init__()
        self.heads = heads
        for name, outputs in heads.items():
            head = nn.Sequential(
                nn.Conv2d(channels, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Conv2d(32, outputs, 1)
            )
            self.add_module(name, head)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name)(x) for name in self.heads}


def _nms(heat: torch.Tensor, kernel: int = 3) -> torch.Tensor:
    hmax = F.max_pool2d(heat, (kernel, kernel), stride=1, padding=(kernel - 1) // 2)
    keep = (hmax == heat).float()
    return heat * keep


def _topk(scores: torch.Tensor, k: int):
    batch, classes, height, width = scores.shape
    topk_scores, topk_inds = torch.topk(scores.view(batch, classes, -1), k)
    topk_inds = topk_inds % (height * width)
    ys = torch.div(topk_inds, width, rounding_mode="floor").float()
    xs = (topk_inds % width).float()
    score, ind = torch.topk(topk_scores.view(batch, -1), k)
    clses = torch.div(ind, k, rounding_mode="floor")
    inds = topk_inds.view(batch, -1).gather(1, ind)
    return score, inds, clses, ys.view(batch, -1).gather(1, ind), xs.view(batch, -1).gather(1, ind)


def _transpose_and_gather(feat: torch.Tensor, ind: torch.Tensor) -> torch.Tensor:
    feat = feat.permute(0, 2, 3, 1).contiguous()
    feat = feat.view(feat.size(0), -1, feat.size(3))
    return feat.gather(1, ind.unsqueeze(2).expand(ind.size(0), ind.size(1), feat.size(2)))


class CenterNet(nn.Module):
    def __init__(self, k: int = 20) -> None:
        super().__init__()
        self.k = k
        self.base = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.level1 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.level2 = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.ida = IDAUp(64, 32)
        self.head = SeparateHead(32, {"heatmap": 3, "reg": 2, "height": 1, "dim": 3, "rot": 2})

    def forward(self, x: torch.Tensor):
        x1 = self.level1(self.base(x))
        maps = self.head(self.ida(self.level2(x1), x1))
        heat = _nms(maps["heatmap"].sigmoid())
        scores, inds, clses, ys, xs = _topk(heat, self.k)
        reg = _transpose_and_gather(maps["reg"], inds)
        rot = _transpose_and_gather(maps["rot"], inds)
        yaw = torch.atan2(rot[..., 0], rot[..., 1])
        dim = _transpose_and_gather(maps["dim"], inds).exp()
        height = _transpose_and_gather(maps["height"], inds)
        centers = torch.stack([xs + reg[..., 0], ys + reg[..., 1]], -1)
        return torch.cat([centers, height, dim, yaw.unsqueeze(-1)], -1), scores, clses


def build():
    return CenterNet(), (torch.randn(1, 3, 64, 64),)
