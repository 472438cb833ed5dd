"""Stereo matching: a group-wise correlation volume over disparities, 3-D hourglass, soft arg-min."""

import torch
import torch.nn.functional as F
from torch import nn


def convbn(inp, out, kernel=3, stride=1, pad=1, dilation=1):
    return nn.Sequential(
        nn.Conv2d(inp, out, kernel, stride, dilation if dilation > 1 else pad, dilation, bias=False),
        nn.BatchNorm2d(out),
    )


def convbn_3d(inp, out, kernel=3, stride=1, pad=1):
    return nn.Sequential(nn.Conv3d(inp, out, kernel, stride, pad, bias=False), nn.BatchNorm3d(out))


def groupwise_correlation(left, right, groups):
    batch, channels, height, width = left.shape
    return (left * right).view(batch, groups, channels // groups, height, width).mean(dim=2)


def build_gwc_volume(left, right, maxdisp, groups):
    batch, _, height, width = left.shape
    volume = left.new_zeros([batch, groups, maxdisp, height, width])
    for i in range(maxdisp):
        if i > 0:
            volume[:, :, i, :, i:] = groupwise_correlation(left[:, :, :, i:], right[:, :, :, :-i], groups)
        else:
            volume[:, :, i, :, :] = groupwise_correlation(left, right, groups)
    return volume.contiguous()


class FeatureExtraction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.firstconv = nn.Sequential(
            convbn(3, 16, 3, 2), nn.ReLU(inplace=True), convbn(16, 16), nn.ReLU(inplace=True)
        )
        self.layer2 = nn.Sequential(convbn(16, 32, 3, 2), nn.ReLU(inplace=True))
        self.layer3 = nn.Sequential(convbn(32, 32, dilation=2), nn.ReLU(inplace=True))

    def forward(self, x):
        x = self.layer2(self.firstconv(x))
        return torch.cat((x, self.layer3(x)), dim=1)


class Hourglass(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(convbn_3d(channels, channels * 2, 3, 2, 1), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(convbn_3d(channels * 2, channels * 2), nn.ReLU(inplace=True))
        self.conv5 = nn.Sequential(
            nn.ConvTranspose3d(channels * 2, channels, 3, padding=1, output_padding=1, stride=2, bias=False),
            nn.BatchNorm3d(channels),
        )
        self.redir1 = convbn_3d(channels, channels, 1, 1, 0)

    def forward(self, x):
        return F.relu(self.conv5(self.conv2(self.conv1(x))) + self.redir1(x), inplace=True)


class GwcNet(nn.Module):
    def __init__(self, maxdisp: int = 32, groups: int = 8) -> None:
        super().__init__()
        self.maxdisp, self.groups = maxdisp, groups
        self.feature_extraction = FeatureExtraction()
        self.dres0 = nn.Sequential(
            convbn_3d(groups, 16), nn.ReLU(inplace=True), convbn_3d(16, 16), nn.ReLU(inplace=True)
        )
        self.dres2 = Hourglass(16)
        self.classif = nn.Sequential(convbn_3d(16, 16), nn.ReLU(inplace=True), nn.Conv3d(16, 1, 3, 1, 1, bias=False))

    def forward(self, left, right):
        left_features, right_features = self.feature_extraction(left), self.feature_extraction(right)
        volume = build_gwc_volume(left_features, right_features, self.maxdisp // 4, self.groups)
        cost = self.classif(self.dres2(self.dres0(volume)))
        cost = F.interpolate(cost, [self.maxdisp, *left.shape[2:]], mode="trilinear").squeeze(1)
        probability = F.softmax(cost, dim=1)
        disparities = torch.arange(0, self.maxdisp, dtype=probability.dtype).view(1, self.maxdisp, 1, 1)
        return torch.sum(probability * disparities, 1)


def build():
    return GwcNet(), (torch.randn(1, 3, 64, 96), torch.randn(1, 3, 64, 96))
