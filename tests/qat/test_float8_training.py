"""fp8 training through torchao: what it computes, emulated on a CPU, and where it is refused."""

import copy
import re

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from bitwright.qat import QATCallback
from bitwright.qat.float8_training import Float8Training
from bitwright.quant.errors import InputError

pytest.importorskip("torchao", reason="needs: pip install 'bitwright[torchao]'")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 5))


def float8(values: np.ndarray) -> np.ndarray:
    """Rounded to E4M3 by one scale, at which the largest value is the format's."""
    scale = np.float32(448.0 / np.abs(values).max())
    return (values * scale).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) / scale


def test_products_round_their_operands_as_ml_dtypes_does() -> None:
    model = network()
    x = torch.randn(16, 32)
    weight, bias = (each.detach().numpy() for each in (model[0].weight, model[0].bias))
    training = Float8Training(model, emulate=True)
    found = model[0](x).detach().numpy()
    expected = float8(x.numpy()) @ float8(weight).T + bias
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2 * np.abs(expected).max())
    assert np.abs(found - expected).max() < 0.2 * np.abs(found - (x.numpy() @ weight.T + bias)).max()
    training.finish()


def test_it_trains_beside_float_and_leaves_the_model_as_it_was() -> None:
    model, plain = network(), network()
    names, parameters = list(model.state_dict()), list(model.parameters())
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, plain)]
    training = Float8Training(model, optimizers[0], emulate=True)
    assert training.layers == ("0", "2")  # 5 outputs are no multiple of 16
    x, labels = torch.randn(64, 32), torch.arange(64) % 5
    losses = []
    for _ in range(20):
        for each, optimizer in zip((model, plain), optimizers, strict=True):
            loss = nn.functional.cross_entropy(each(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        training.on_step()
    assert losses[-2] < losses[0] and losses[-2] == pytest.approx(losses[-1], rel=0.02)
    assert losses[-2] != losses[-1]
    training.finish()
    assert [type(each) for each in model.modules()] == [type(each) for each in plain.modules()]
    assert list(model.state_dict()) == names
    assert all(own is old for own, old in zip(model.parameters(), parameters, strict=True))
    QATCallback(model, optimizers[0], target="x86-vnni", calibration=[x]).finish()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "fp8 training needs a GPU with products in float8 (NVIDIA compute capability 8.9 or later: Ada, Hopper, "
            "Blackwell); the model is on cpu. emulate=True computes the same roundings anywhere, slowly",
        ),
        (
            {"recipe": "blockwise", "emulate": True},
            "recipe = 'blockwise'; torchao's are: tensorwise, rowwise, rowwise_with_gw_hp",
        ),
        ({"skip": ["head"], "emulate": True}, "skip = ['head']: no such linear layers; there are: 0, 2, 4"),
        (
            {"skip": ["0", "2"], "emulate": True},
            "no linear layer of this model can train in float8: of 3 that it has, 2 are skipped and the others have "
            "features that are no multiple of 16",
        ),
    ],
)
def test_what_is_refused_leaves_the_model_alone(options: dict[str, object], message: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Float8Training(model, **options)
    assert [type(each) for each in model.modules()] == [type(each) for each in network().modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
