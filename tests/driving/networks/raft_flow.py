"""RAFT: all-pairs correlation, looked up around the current flow, refined by a recurrent unit until it settles."""

import torch
import torch.nn.functional as F
from torch import nn


def coords_grid(batch: int, height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=0).float()[None].repeat(batch, 1, 1, 1)


def bilinear_sampler(img: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
    height, width = img.shape[-2:]
    xgrid, ygrid = coords.split([1, 1], dim=-1)
    xgrid = 2 * xgrid / (width - 1) - 1
    ygrid = 2 * ygrid / (height - 1) - 1
    return F.grid_sample(img, torch.cat([xgrid, ygrid], dim=-1), align_corners=True)


class CorrBlock:
    def __init__(self, fmap1: torch.Tensor, fmap2: torch.Tensor, levels: int = 2, radius: int = 2) -> None:
        self.radius = radius
        batch, dim, height, width = fmap1.shape
        corr = torch.matmul(fmap1.view(batch, dim, -1).transpose(1, 2), fmap2.view(batch, dim, -1))
        corr = corr.view(batch * height * width, 1, height, width) / torch.sqrt(torch.tensor(float(dim)))
        self.pyramid = [corr]
        for _ in range(levels - 1):
            self.pyramid.append(F.avg_pool2d(self.pyramid[-1], 2, stride=2))

    def __call__(self, coords: torch.Tensor) -> torch.Tensor:
        r = self.radius
        coords = coords.permute(0, 2, 3, 1)
        batch, height, width, _ = coords.shape
        d = torch.linspace(-r, r, 2 * r + 1)
        delta = torch.stack(torch.meshgrid(d, d, indexing="ij"), dim=-1).view(1, 2 * r + 1, 2 * r + 1, 2)
        out = []
        for i, corr in enumerate(self.pyramid):
            centroid = coords.reshape(batch * height * width, 1, 1, 2) / 2**i
            out.append(bilinear_sampler(corr, centroid + delta).view(batch, height, width, -1))
        return torch.cat(out, dim=-1).permute(0, 3, 1, 2).contiguous()


class ConvGRU(nn.Module):
    def __init__(self, hidden: int, inp: int) -> None:
        super().__init__()
        self.convz = nn.Conv2d(hidden + inp, hidden, 3, padding=1)
        self.convr = nn.Conv2d(hidden + inp, hidden, 3, padding=1)
        self.convq = nn.Conv2d(hidden + inp, hidden, 3, padding=1)

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        hx = torch.cat([h, x], dim=1)
        z, r = torch.sigmoid(self.convz(hx)), torch.sigmoid(self.convr(hx))
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)))
        return (1 - z) * h + z * q


class UpdateBlock(nn.Module):
    def __init__(self, hidden: int = 48, corr: int = 50) -> None:
        super().__init__()
        self.convc = nn.Conv2d(corr, 48, 1)
        self.convf = nn.Conv2d(2, 16, 7, padding=3)
        self.conv = nn.Conv2d(64, 46, 3, padding=1)
        self.gru = ConvGRU(hidden, hidden + 48)
        self.flow_head = nn.Sequential(nn.Conv2d(hidden, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1))

    def forward(self, net, inp, corr, flow):
        motion = F.relu(self.conv(torch.cat([F.relu(self.convc(corr)), F.relu(self.convf(flow))], dim=1)))
        net = self.gru(net, torch.cat([inp, motion, flow], dim=1))
        return net, self.flow_head(net)


class Encoder(nn.Module):
    def __init__(self, out: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 7, 2, 3), norm(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, 2, 1), norm(64)
        self.conv3 = nn.Conv2d(64, out, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.conv3(x)


class RAFT(nn.Module):
    def __init__(self, iters: int = 6, tolerance: float = 1e-3) -> None:
        super().__init__()
        self.iters, self.tolerance = iters, tolerance
        self.fnet, self.cnet = Encoder(64, nn.InstanceNorm2d), Encoder(96, nn.BatchNorm2d)
        self.update_block = UpdateBlock()

    def forward(self, image1: torch.Tensor, image2: torch.Tensor) -> torch.Tensor:
        fmap1, fmap2 = self.fnet(image1), self.fnet(image2)
        corr_fn = CorrBlock(fmap1, fmap2)
        net, inp = torch.split(self.cnet(image1), [48, 48], dim=1)
        net, inp = torch.tanh(net), torch.relu(inp)
        coords0 = coords_grid(*fmap1.shape[:1], *fmap1.shape[2:])
        coords1 = coords0.clone()
        for _ in range(self.iters):
            net, delta = self.update_block(net, inp, corr_fn(coords1), coords1 - coords0)
            coords1 = coords1 + delta
            if delta.norm(dim=1).mean() < self.tolerance:
                break
        return F.interpolate(8 * (coords1 - coords0), scale_factor=8, mode="bilinear", align_corners=True)


def build():
    return RAFT(), (torch.randn(1, 3, 64, 96), torch.randn(1, 3, 64, 96))
