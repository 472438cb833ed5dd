"""LaneATT: features pooled along fixed line anchors, attention between the anchors, lanes as offsets."""

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inplanes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class LaneATT(nn.Module):
    def __init__(self, anchors: int = 40, offsets: int = 36, channels: int = 32, map_size=(8, 16)) -> None:
        super().__init__()
        self.n_offsets, self.channels = offsets, channels
        self.fmap_h, self.fmap_w = map_size
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, 32, 7, 2, 3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            BasicBlock(32, 64, 2),
            BasicBlock(64, 64, 1),
        )
        self.conv1 = nn.Conv2d(64, channels, kernel_size=1)
        width = channels * self.fmap_h
        self.cls_layer = nn.Linear(2 * width, 2)
        self.reg_layer = nn.Linear(2 * width, offsets + 1)
        self.attention_layer = nn.Linear(width, anchors - 1)
        start = torch.linspace(0, self.fmap_w - 1, anchors)
        columns = start[:, None] + (torch.rand(anchors, 1) - 0.5) * torch.arange(self.fmap_h)
        columns = columns.round().long()
        self.register_buffer("cut_xs", columns.clamp(0, self.fmap_w - 1))
        self.register_buffer("cut_ys", torch.arange(self.fmap_h).expand(anchors, -1).contiguous())
        self.register_buffer("invalid_mask", (columns < 0) | (columns >= self.fmap_w))
        self.register_buffer("anchors", torch.rand(anchors, offsets + 5))

    def cut_anchor_features(self, features: torch.Tensor) -> torch.Tensor:
        rois = features[:, :, self.cut_ys, self.cut_xs].permute(0, 2, 1, 3)
        return rois.masked_fill(self.invalid_mask[None, :, None], 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv1(self.feature_extractor(x))
        rois = self.cut_anchor_features(features)
        batch, anchors = rois.shape[:2]
        rois = rois.reshape(batch * anchors, -1)
        scores = self.attention_layer(rois)
        attention = F.softmax(scores, dim=1).reshape(batch, anchors, -1)
        # An anchor does not attend to itself: a zero is put on the diagonal.
        upper = F.pad(attention, (1, 0)).triu(1)
        lower = F.pad(attention, (0, 1)).tril(-1)
        matrix = upper + lower
        rois = rois.reshape(batch, anchors, -1)
        attended = torch.bmm(torch.transpose(rois, 1, 2), torch.transpose(matrix, 1, 2)).transpose(1, 2)
        joined = torch.cat((attended, rois), dim=2).reshape(batch * anchors, -1)
        cls_logits = self.cls_layer(joined).reshape(batch, anchors, 2)
        reg = self.reg_layer(joined).reshape(batch, anchors, self.n_offsets + 1)
        proposals = torch.zeros(batch, anchors, 5 + self.n_offsets)
        proposals += self.anchors
        proposals[:, :, :2] = cls_logits
        proposals[:, :, 4:] += reg
        return proposals


def build():
    return LaneATT(), (torch.randn(1, 3, 64, 128),)
