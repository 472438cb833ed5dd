"""PointNet: a learned 3x3 alignment, shared layers for each point, a maximum over all, per-point labels."""

import torch
import torch.nn.functional as F
from torch import nn


class STN3d(nn.Module):
    def __init__(self, channels: int, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.bn1 = nn.Conv1d(channels, 64, 1), nn.BatchNorm1d(64)
        self.conv2, self.bn2 = nn.Conv1d(64, 128, 1), nn.BatchNorm1d(128)
        self.fc1, self.bn3 = nn.Linear(128, 64), nn.BatchNorm1d(64)
        self.fc2 = nn.Linear(64, k * k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batchsize = x.size()[0]
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0]
        x = x.view(-1, 128)
        x = F.relu(self.bn3(self.fc1(x)))
        iden = torch.eye(self.k).view(1, self.k * self.k).repeat(batchsize, 1)
        return (self.fc2(x) + iden).view(-1, self.k, self.k)


class PointNetEncoder(nn.Module):
    def __init__(self, channel: int = 4) -> None:
        super().__init__()
        self.stn = STN3d(channel)
        self.conv1, self.bn1 = nn.Conv1d(channel, 64, 1), nn.BatchNorm1d(64)
        self.conv2, self.bn2 = nn.Conv1d(64, 128, 1), nn.BatchNorm1d(128)
        self.conv3, self.bn3 = nn.Conv1d(128, 256, 1), nn.BatchNorm1d(256)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = x.size(2)
        trans = self.stn(x)
        x = x.transpose(2, 1)
        feature = x[:, :, 3:]
        x = torch.bmm(x[:, :, :3], trans)
        x = torch.cat([x, feature], dim=2).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        pointfeat = x
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 256)
        return torch.cat([x.unsqueeze(-1).repeat(1, 1, points), pointfeat], 1), trans


class PointNetSeg(nn.Module):
    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.feat = PointNetEncoder()
        self.conv1, self.bn1 = nn.Conv1d(320, 128, 1), nn.BatchNorm1d(128)
        self.conv2, self.bn2 = nn.Conv1d(128, 64, 1), nn.BatchNorm1d(64)
        self.drop = nn.Dropout(p=0.4)
        self.conv3 = nn.Conv1d(64, classes, 1)

    def forward(self, x: torch.Tensor):
        x, trans = self.feat(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.drop(F.relu(self.bn2(self.conv2(x))))
        x = self.conv3(x)
        return F.log_softmax(x.transpose(2, 1).contiguous(), dim=-1), trans


def build():
    return PointNetSeg(), (torch.randn(1, 4, 256),)
