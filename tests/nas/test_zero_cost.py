import math

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.nas.zero_cost import naswot, synflow
from bitwright.quant.errors import InputError


def test_naswot_is_the_log_determinant_of_shared_bits() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(5, 40), nn.Linear(40, 30)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    samples = torch.randn(9, 5)
    hidden = samples.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    output = np.maximum(hidden, 0) @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    codes = np.concatenate([hidden > 0, output > 0], axis=1)
    kernel = [[np.sum(one == other) for other in codes] for one in codes]  # bits less the Hamming distance
    expected = np.linalg.slogdet(np.array(kernel, dtype=float))[1]
    assert naswot(model, (sample[None] for sample in samples)) == pytest.approx(expected)


def test_naswot_of_a_network_without_rectifiers_is_refused() -> None:
    with pytest.raises(InputError, match="this network has none as modules"):
        naswot(nn.Linear(3, 2), [torch.zeros(1, 3)])


def test_synflow_of_linear_layers_is_the_sum_over_paths() -> None:
    """Without biases each layer's flow is the same: 1' |W2| |W1| 1 (Tanaka et al. 2020, theorem 1)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    one, two = (layer.weight.detach().double().abs().numpy() for layer in (model[0], model[2]))
    paths = (two @ one @ np.ones(4)).sum()
    before = [each.clone() for each in model.parameters()]
    assert synflow(model, (torch.randn(1, 4),)) == pytest.approx(math.log(2 * paths))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
