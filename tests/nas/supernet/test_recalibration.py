from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.nas.elastic import inherit
from bitwright.nas.supernet import recalibrate
from bitwright.quant.errors import InputError


def test_statistics_are_those_of_a_full_pass(tiny: ModuleType) -> None:
    """One batch of all samples: mean and unbiased variance of what arrives, layer behind layer, in NumPy."""
    elastic = tiny.TinyElastic()
    chosen = tiny.candidate(4, 3, True)
    network = inherit(elastic, chosen)
    images, _ = tiny.TinyTask().samples(64, 3)
    recalibrate(network, [(images,)])

    y = F.conv2d(images, network.stem.weight, padding=1).detach().numpy().astype(np.float64)
    np.testing.assert_allclose(network.norm.running_mean, y.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.norm.running_var, y.var((0, 2, 3), ddof=1), rtol=1e-4)
    scaled = (y - y.mean((0, 2, 3), keepdims=True)) / np.sqrt(y.var((0, 2, 3), keepdims=True) + network.norm.eps)
    hidden = torch.relu(torch.from_numpy(scaled).float())  # its factors are 1 and 0, untrained
    z = network.inner[0](hidden).detach().numpy().astype(np.float64)
    np.testing.assert_allclose(network.inner[1].running_mean, z.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.inner[1].running_var, z.var((0, 2, 3), ddof=1), rtol=1e-4)


def test_batches_count_alike(tiny: ModuleType) -> None:
    network = inherit(tiny.TinyElastic(), tiny.candidate())
    batches = [tiny.TinyTask().samples(16, seed)[0] for seed in range(3)]
    recalibrate(network, [(each,) for each in batches])
    arrived = [F.conv2d(each, network.stem.weight, padding=2) for each in batches]
    mean = torch.stack([each.mean((0, 2, 3)) for each in arrived]).mean(0)
    variance = torch.stack([each.var((0, 2, 3)) for each in arrived]).mean(0)
    torch.testing.assert_close(network.norm.running_mean, mean)
    torch.testing.assert_close(network.norm.running_var, variance)


def test_it_is_deterministic_with_dropout_and_leaves_momentum_and_mode_as_they_should_be(tiny: ModuleType) -> None:
    elastic = tiny.TinyElastic(dropout=0.5)
    batches = [(tiny.TinyTask().samples(16, 1)[0],)]
    networks = [inherit(elastic, tiny.candidate()) for _ in range(2)]
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        recalibrate(network, batches)
        assert not any(each.training for each in network.modules())
        assert network.norm.momentum == 0.1
    for name, buffer in networks[0].named_buffers():
        assert torch.equal(buffer, networks[1].get_buffer(name)), name


def test_no_batches_are_refused_and_networks_without_batch_norms_need_none(tiny: ModuleType) -> None:
    recalibrate(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), [])
    with pytest.raises(InputError, match="batch norms: no batch to take statistics from; give at least one"):
        recalibrate(inherit(tiny.TinyElastic(), tiny.candidate()), [])
