"""Plain descent with momentum on real digits: scales neither collapse nor run away where weights train well."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat import QATCallback, QATSchedule
from bitwright.qat.quantizer import Quantizers
from bitwright.quant.errors import InputError

Data = tuple[torch.Tensor, torch.Tensor]
_TRAINED = 1200


@pytest.fixture(scope="module")
def digits() -> Data:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pictures = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return pictures[order], torch.tensor(labels)[order]


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, epochs: int, qat: QATCallback | None) -> None:
    model.train()
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.randperm(_TRAINED, generator=generator).split(32):
            loss = F.cross_entropy(model(data[0][rows]), data[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if qat is not None:
                qat.on_step()


@torch.no_grad()
def top1(model: nn.Module, data: Data) -> float:
    model.eval()
    return 100 * float((model(data[0][_TRAINED:]).argmax(1) == data[1][_TRAINED:]).float().mean())


@pytest.fixture(scope="module")
def network(digits: Data) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    fit(model, torch.optim.AdamW(model.parameters(), 3e-3), digits, 8, None)
    return model


def trained(network: nn.Module, digits: Data, bits: int, lr: float) -> float:
    model = copy.deepcopy(network)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    qat = QATCallback(
        model,
        optimizer,
        target="x86-vnni",
        weights=f"int{bits}",
        activations=f"uint{bits}",
        calibration=[(digits[0][:128], digits[1][:128])],
        schedule=QATSchedule(freeze_batch_norm_after=None),
    )
    fit(model, optimizer, digits, 3, qat)
    return top1(model, digits)


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_descent_with_momentum_keeps_its_scales(network: nn.Module, digits: Data, bits: int) -> None:
    assert trained(network, digits, bits, 0.01) > top1(network, digits) - 3.0


def test_a_faster_training_keeps_its_scales_and_loses_one_without_the_bound(
    network: nn.Module, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = 0.02  # too fast to be good for weights
    trained(network, digits, 8, faster)
    monkeypatch.setattr(Quantizers, "bound_gradients", lambda _: None)
    with pytest.raises(InputError, match=r"the scale of .* times what it was at the start"):
        trained(network, digits, 8, faster)


def test_no_step_of_plain_descent_moves_a_scale_by_more_than_its_learning_rate(
    network: nn.Module, digits: Data
) -> None:
    model = copy.deepcopy(network)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    qat = QATCallback(model, optimizer, target="x86-vnni", calibration=[digits[0][:128]])
    model.train()
    (1e4 * F.cross_entropy(model(digits[0][:32]), digits[1][:32])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moved = torch.cat([q.log_ratio.detach().abs() for _, q in qat.replay.parts.quantizers.named()])
    assert float(moved.max()) == pytest.approx(0.05)
