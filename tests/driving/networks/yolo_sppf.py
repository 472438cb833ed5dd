"""YOLO as it ships: C2f blocks, SPPF, a path-aggregation neck, decoupled heads with distribution focal boxes."""

import torch
from torch import nn


def autopad(k, p=None):
    return k // 2 if p is None else p


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p), groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU() if act is True else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c1, c2, shortcut=True) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2, 3, 1), Conv(c2, c2, 3, 1)
        self.add = shortcut and c1 == c2

    def forward(self, x):
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2f(nn.Module):
    def __init__(self, c1, c2, n=1, shortcut=False) -> None:
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1, 2 * self.c, 1, 1)
        self.cv2 = Conv((2 + n) * self.c, c2, 1)
        self.m = nn.ModuleList(Bottleneck(self.c, self.c, shortcut) for _ in range(n))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2, 1, 1), Conv(c1 // 2 * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class DFL(nn.Module):
    def __init__(self, c1=16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(c1, dtype=torch.float).view(1, c1, 1, 1)
        self.c1 = c1

    def forward(self, x):
        b, _, a = x.shape
        return self.conv(x.view(b, 4, self.c1, a).transpose(2, 1).softmax(1)).view(b, 4, a)


class Detect(nn.Module):
    def __init__(self, nc=8, ch=(64, 128), reg_max=16) -> None:
        super().__init__()
        self.nc, self.reg_max, self.strides = nc, reg_max, (8, 16)
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(x, 64, 3), nn.Conv2d(64, 4 * reg_max, 1)) for x in ch)
        self.cv3 = nn.ModuleList(nn.Sequential(Conv(x, 64, 3), nn.Conv2d(64, nc, 1)) for x in ch)
        self.dfl = DFL(reg_max)

    def make_anchors(self, feats):
        points, strides = [], []
        for feat, stride in zip(feats, self.strides, strict=True):
            h, w = feat.shape[2:]
            sy, sx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            points.append(torch.stack((sx, sy), -1).view(-1, 2))
            strides.append(torch.full((h * w, 1), float(stride)))
        return torch.cat(points).transpose(0, 1), torch.cat(strides).transpose(0, 1)

    def forward(self, x):
        raw = [torch.cat((self.cv2[i](x[i]), self.cv3[i](x[i])), 1) for i in range(len(x))]
        anchors, strides = self.make_anchors(raw)
        joined = torch.cat([r.view(r.shape[0], self.nc + 4 * self.reg_max, -1) for r in raw], 2)
        box, cls = joined.split((4 * self.reg_max, self.nc), 1)
        lt, rb = self.dfl(box).chunk(2, 1)
        x1y1, x2y2 = anchors.unsqueeze(0) - lt, anchors.unsqueeze(0) + rb
        dbox = torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * strides
        return torch.cat((dbox, cls.sigmoid()), 1)


class Yolo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down1 = Conv(3, 16, 3, 2), Conv(16, 32, 3, 2)
        self.c2f1, self.down2 = C2f(32, 32, 1, True), Conv(32, 64, 3, 2)
        self.c2f2, self.down3 = C2f(64, 64, 2, True), Conv(64, 128, 3, 2)
        self.sppf = SPPF(128, 128)
        self.up = nn.Upsample(None, 2, "nearest")
        self.neck1, self.down4, self.neck2 = C2f(192, 64), Conv(64, 64, 3, 2), C2f(192, 128)
        self.detect = Detect()

    def forward(self, x):
        p3 = self.c2f2(self.down2(self.c2f1(self.down1(self.stem(x)))))
        p4 = self.sppf(self.down3(p3))
        n3 = self.neck1(torch.cat([self.up(p4), p3], 1))
        n4 = self.neck2(torch.cat([self.down4(n3), p4], 1))
        return self.detect([n3, n4])


def build():
    return Yolo(), (torch.randn(1, 3, 96, 128),)
