"""A single-stage detector that ends in non-maximum suppression, written in Python as deployment scripts do."""

import torch
from torch import nn


def xywh2xyxy(x):
    xy, wh = x[..., :2], x[..., 2:4] / 2
    return torch.cat((xy - wh, xy + wh), -1)


def box_iou(a, b):
    lt = torch.max(a[:, None, :2], b[None, :, :2])
    rb = torch.min(a[:, None, 2:], b[None, :, 2:])
    inter = (rb - lt).clamp(min=0).prod(2)
    area_a = (a[:, 2:] - a[:, :2]).prod(1)
    area_b = (b[:, 2:] - b[:, :2]).prod(1)
    return inter / (area_a[:, None] + area_b[None] - inter + 1e-7)


def non_max_suppression(prediction, conf_thres=0.5, iou_thres=0.45, max_det=20):
    output = []
    for x in prediction:
        x = x[x[:, 4] > conf_thres]
        if not x.shape[0]:
            output.append(x.new_zeros(0, 6))
            continue
        conf, cls = (x[:, 5:] * x[:, 4:5]).max(1, keepdim=True)
        x = torch.cat((xywh2xyxy(x[:, :4]), conf, cls.float()), 1)
        x = x[x[:, 4].argsort(descending=True)]
        keep = []
        while len(x) and len(keep) < max_det:
            keep.append(x[0])
            if len(x) == 1:
                break
            iou = box_iou(x[:1, :4], x[1:, :4])[0]
            x = x[1:][iou < iou_thres]
        output.append(torch.stack(keep))
    return output


class Stage(nn.Module):
    def __init__(self, inp, out) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(inp, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.1))
        self.squeeze = nn.Sequential(
            nn.Conv2d(out, out // 2, 1, bias=False), nn.BatchNorm2d(out // 2), nn.LeakyReLU(0.1)
        )
        self.expand = nn.Sequential(
            nn.Conv2d(out // 2, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.1)
        )

    def forward(self, x):
        x = self.down(x)
        return x + self.expand(self.squeeze(x))


class YoloLayer(nn.Module):
    def __init__(self, channels, anchors, stride, classes=4) -> None:
        super().__init__()
        self.stride, self.outputs = stride, classes + 5
        self.conv = nn.Conv2d(channels, len(anchors) * self.outputs, 1)
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))

    def forward(self, x):
        batch, _, ny, nx = self.conv(x).shape
        p = self.conv(x).view(batch, len(self.anchors), self.outputs, ny, nx).permute(0, 1, 3, 4, 2)
        yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
        grid = torch.stack((xv, yv), 2).view(1, 1, ny, nx, 2).float()
        xy = (p[..., :2].sigmoid() + grid) * self.stride
        wh = p[..., 2:4].exp() * self.anchors.view(1, -1, 1, 1, 2)
        return torch.cat((xy, wh, p[..., 4:].sigmoid()), -1).view(batch, -1, self.outputs)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Stage(3, 16), Stage(16, 32), Stage(32, 64), Stage(64, 128))
        self.head = YoloLayer(128, [(10, 14), (23, 27), (37, 58)], 16)

    def forward(self, images):
        return non_max_suppression(self.head(self.backbone(images)))


def build():
    return Detector(), (torch.randn(1, 3, 64, 96),)
