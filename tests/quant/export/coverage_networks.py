"""One small network for each kind of operator that accelerators are there for, with example arguments."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Example = tuple[nn.Module, tuple[torch.Tensor, ...]]


class Recurrence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body, self.head = kind(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(x).mean(1))


class Pyramid(nn.Module):
    """One head over three levels, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(3))
        self.head = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for level in self.levels:
            x = F.relu(level(x))
            found.append(self.head(x))
        return found


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)
        self.register_buffer("memory", torch.zeros(1, 4, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory = torch.tanh(self.mix(torch.cat([x, self.memory], 1)))
        return self.out(self.memory)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.body(x) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Joining(nn.Module):
    """A concatenation of two layers' results, as large as each other or a hundred times."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.left(x), self.right(x)], 1))


class Products(nn.Module):
    """Two products of activations, as attention has them, and one with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.a(x) @ self.b(x).transpose(1, 2), -1) @ x @ self.table


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def picture(channels: int = 3, size: int = 12) -> tuple[torch.Tensor]:
    return (torch.randn(1, channels, size, size),)


NETWORKS: dict[str, Callable[[], Example]] = {
    "conv1d": lambda: (chain(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 1)), (torch.randn(1, 3, 12),)),
    "conv2d": lambda: (chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, dilation=2)), picture()),
    "conv3d": lambda: (
        chain(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 2, 1)),
        (torch.randn(1, 2, 6, 6, 6),),
    ),
    "transposed1d": lambda: (chain(nn.ConvTranspose1d(3, 8, 2, 2), nn.Conv1d(8, 4, 1)), (torch.randn(1, 3, 6),)),
    "transposed2d": lambda: (chain(nn.ConvTranspose2d(3, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 4, 1)), picture()),
    "transposed3d": lambda: (
        chain(nn.ConvTranspose3d(2, 4, 2, 2), nn.Conv3d(4, 2, 1)),
        (torch.randn(1, 2, 4, 4, 4),),
    ),
    "grouped": lambda: (chain(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=4)), picture(4)),
    "depthwise": lambda: (chain(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6(), nn.Conv2d(4, 8, 1)), picture(4)),
    "linear": lambda: (chain(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), (torch.randn(2, 5, 8),)),
    "matmul": lambda: (Products(), (torch.randn(2, 5, 8),)),
    "attention": lambda: (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (torch.randn(1, 5, 16),)),
    "sdpa": lambda: (Attending(), (torch.randn(1, 5, 16),)),
    "embedding": lambda: (Words(), (torch.randint(0, 11, (1, 5)),)),
    "lstm": lambda: (Recurrence(nn.LSTM), (torch.randn(1, 4, 6),)),
    "gru": lambda: (Recurrence(nn.GRU), (torch.randn(1, 4, 6),)),
    "norm_softmax_gelu": lambda: (
        chain(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 8), nn.Softmax(-1), nn.Linear(8, 4)),
        (torch.randn(2, 5, 8),),
    ),
    "residual": lambda: (Residual(), picture()),
    "concat": lambda: (Joining(), picture()),
    "pyramid": lambda: (Pyramid(), picture(size=32)),
    "state": lambda: (Remembering(), (torch.randn(1, 4, 6, 6),)),
}
