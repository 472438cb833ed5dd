"""What one loud channel costs the others: the formula beside a direct simulation."""

import math

import pytest
import torch

from bitwright.quant.channel_peaks import ChannelPeaks, channel_extremes
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import Granularity, QParamsSpec


def test_the_gain_is_that_of_scales_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(6, 20_000, generator=generator) * 2 - 1
    values *= torch.tensor([1.0, 1.0, 0.5, 2.0, 1.0, 16.0]).view(6, 1)
    low, high = channel_extremes(values, 0)
    peaks = ChannelPeaks.of(low, high, own_scales=False)
    assert (peaks.channels, peaks.dead, peaks.loudest) == (6, 0, 5)
    assert peaks.loudness == pytest.approx(16.0, rel=1e-3)
    spec = QParamsSpec(format=FORMATS["int8"], symmetric=True)
    own = QParamsSpec(format=FORMATS["int8"], symmetric=True, granularity=Granularity.PER_CHANNEL)
    noises = [
        (values - fake_quantize(values, qparams)).double().square().sum()
        for qparams in (choose_qparams(low.amin(), high.amax(), spec), choose_qparams(low, high, own, axis=0))
    ]
    assert peaks.own_scales_gain_db == pytest.approx(10 * math.log10(noises[0] / noises[1]), abs=0.1)
    assert ChannelPeaks.of(low, high, own_scales=True).own_scales_gain_db == 0


def test_constant_channels_are_dead_and_do_not_count_for_the_median() -> None:
    values = torch.tensor([[0.0, 0.0], [3.0, 3.0], [-1.0, 1.0], [0.0, 4.0]])
    peaks = ChannelPeaks.of(*channel_extremes(values, 0), own_scales=False)
    assert (peaks.dead, peaks.loudest, peaks.loudness) == (2, 3, 4.0)
    silent = ChannelPeaks.of(torch.zeros(3), torch.zeros(3), own_scales=False)
    assert (silent.dead, silent.loudness, silent.own_scales_gain_db) == (3, 1.0, 0.0)
