"""Derived sizes of rounding against float64 arithmetic, and bounds that hold."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.parity_measures.rounding import Rounding, gamma, rounding_of, terms, unit_roundoff


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unit_roundoff_is_half_of_torchs_epsilon(dtype: torch.dtype) -> None:
    assert unit_roundoff(str(dtype).removeprefix("torch.")) == torch.finfo(dtype).eps / 2


def test_formats_without_digits_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown floating-point format 'int8'; there are: .*float32"):
        unit_roundoff("int8")


def test_gamma() -> None:
    assert gamma(10, 0.01) == pytest.approx(0.1 / 0.9)
    assert gamma(100, 0.01) == math.inf


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group = nn.Conv2d(64, 8, 3, groups=2), nn.GroupNorm(2, 8)
        self.plain, self.linear = nn.Conv2d(64, 8, 3, bias=False), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.group(self.conv(x))
        z = self.linear(F.relu(self.plain(x)).mean((2, 3))).softmax(1)
        return y, z.cumsum(1), F.avg_pool2d(y, 2), y @ y.transpose(2, 3)


def test_terms_of_operators() -> None:
    graph = capture(Layers().eval(), (torch.randn(1, 64, 8, 8),)).graph
    found: dict[str, list[int]] = {}
    for node in graph.nodes:
        found.setdefault(node.op, []).append(terms(graph, node))
    assert sorted(found["conv2d"]) == [64 // 2 * 9 + 1, 64 * 9]
    assert found["group_norm"] == [4 * 6 * 6]
    assert found["mean"] == [6 * 6]
    assert found["linear"] == [8 + 1]
    assert found["softmax"] == found["cumsum"] == [4]
    assert found["avg_pool2d"] == [4]
    assert found["matmul"] == [6]
    relu = next(node for node in graph.nodes if node.op == "relu")
    assert rounding_of(graph, relu).expected == rounding_of(graph, relu).worst == 0.0


def test_the_reason_in_words() -> None:
    conv = Rounding(op="conv", terms=576, ulps=1.0, format="float32")
    assert str(conv) == "conv of 576 terms in float32"
    assert conv.expected == pytest.approx(1.17e-6, rel=0.01)


@pytest.mark.parametrize("count", [16, 256, 4096])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_sums_stay_within_what_is_derived(count: int, dtype: type) -> None:
    """Two sound orders of one sum: term by term, and pairwise as NumPy adds; against exact sums in float64."""
    rng = np.random.default_rng(count)
    name = np.dtype(dtype).name
    values = rng.normal(size=(400, count)).astype(dtype)
    one_by_one = np.zeros(400, dtype)
    for column in values.T:
        one_by_one = (one_by_one + column).astype(dtype)
    pairwise = values.sum(1, dtype=dtype)
    difference = np.abs(one_by_one.astype(np.float64) - pairwise)
    rounding = Rounding(op="sum", terms=count, ulps=1.0, format=name)
    assert (difference <= rounding.worst * np.abs(values.astype(np.float64)).sum(1)).all()
    scale = math.sqrt(float(np.square(values.astype(np.float64).sum(1)).mean()))
    seen = math.sqrt(float(np.square(difference).mean())) / scale
    assert rounding.expected / 10 < seen < rounding.expected
