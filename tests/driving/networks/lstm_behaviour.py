"""Intent of other road users: track histories of unlike length, packed, through an LSTM and social pooling."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class BevContext(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(5, 32, 5, 2, 2, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.1),
            nn.Conv2d(32, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 3, 2, 1),
        )
        self.fc = nn.Linear(64 * 8 * 8, dims)

    def forward(self, raster: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.fc(self.net(raster).flatten(1)), 0.1)


class SocialPooling(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.relative = nn.Linear(2, dims)
        self.mlp = nn.Sequential(nn.Linear(2 * dims, 2 * dims), nn.ReLU(), nn.Linear(2 * dims, dims))

    def forward(self, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        count = hidden.shape[0]
        relative = self.relative(position[None] - position[:, None])
        others = hidden[None].expand(count, -1, -1)
        return self.mlp(torch.cat([relative, others], dim=-1)).max(dim=1).values


class IntentPredictor(nn.Module):
    def __init__(self, dims: int = 64, intents: int = 6, steps: int = 12) -> None:
        super().__init__()
        self.steps = steps
        self.context = BevContext(dims)
        self.embed = nn.Sequential(nn.Linear(5, dims), nn.ReLU())
        self.encoder = nn.LSTM(dims, dims, batch_first=True)
        self.pool = SocialPooling(dims)
        self.decoder = nn.GRUCell(2, 3 * dims)
        self.position, self.intent = nn.Linear(3 * dims, 2), nn.Linear(3 * dims, intents)

    def forward(self, raster: torch.Tensor, history: torch.Tensor, lengths: torch.Tensor):
        context = self.context(raster)
        packed = pack_padded_sequence(self.embed(history), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.encoder(packed)
        hidden = hidden[-1]
        last = history[torch.arange(len(lengths)), lengths - 1, :2]
        state = torch.cat([hidden, self.pool(hidden, last), context.expand(len(hidden), -1)], dim=-1)
        intent, points = self.intent(state), []
        for _ in range(self.steps):
            state = self.decoder(last, state)
            last = last + self.position(state)
            points.append(last)
        return torch.stack(points, dim=1), intent


def build():
    return IntentPredictor(), (torch.randn(1, 5, 64, 64), torch.randn(5, 10, 5), torch.tensor([10, 7, 4, 10, 3]))
