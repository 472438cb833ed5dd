from pathlib import Path

import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.to_module import to_module


class Tracker(nn.Module):
    """State, keyword arguments and a dictionary as the result."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(2, 4))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layer(x) * scale + self.memory
        self.memory.copy_(out)
        return {"out": out, "twice": out * 2}


X, SCALE = torch.randn(2, 4), torch.full((1,), 3.0)


def test_the_module_computes_what_the_users_own_did_frame_after_frame() -> None:
    net = Tracker().eval()
    module = to_module(capture(net, (X,), {"scale": SCALE}))
    with torch.no_grad():
        for _ in range(3):
            expected, got = net(X, scale=SCALE), module(X, scale=SCALE)
            assert expected.keys() == got.keys()
            assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_it_can_be_trained() -> None:
    module = to_module(capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (X,)))
    module(X).sum().backward()
    assert {tuple(each.shape) for each in module.parameters()} == {(4, 4), (4,)}
    assert all(each.grad is not None for each in module.parameters())


def test_it_can_be_saved_as_a_program(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(to_module(capture(net, (X,))), (X,), strict=False), str(file))
    with torch.no_grad():
        assert torch.equal(torch.export.load(str(file)).module()(X), net(X))
