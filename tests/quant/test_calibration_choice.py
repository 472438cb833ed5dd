"""The choice of calibration samples: near the best by brute force, every slice covered, no loud one decides."""

import itertools

import pytest
import torch
from torch import nn

from bitwright.quant.calibration_choice import choose_samples, histograms_of
from bitwright.quant.capture import capture


def distance(histograms: torch.Tensor, chosen: list[int], slices: list[str] | None = None) -> float:
    """The distance of the module's docstring, written out."""
    names = slices or ["all"] * len(histograms)
    parts = [histograms[[i for i, each in enumerate(names) if each == name]].mean(0) for name in sorted(set(names))]
    wanted = torch.stack(parts).mean(0)
    return float((histograms[chosen].mean(0).sqrt() - wanted.sqrt()).square().sum())


def random_histograms(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(count, 3, 8, generator=generator) ** 4
    return shares / shares.sum(2, keepdim=True)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sliced", [False, True])
def test_it_is_nearer_than_nearly_all_choices(seed: int, sliced: bool) -> None:
    histograms = random_histograms(10, seed)
    slices = ["day"] * 7 + ["night"] * 2 + ["rain"] if sliced else None
    chosen = choose_samples(histograms, 4, slices)
    others = sorted(distance(histograms, list(each), slices) for each in itertools.combinations(range(10), 4))
    assert len(set(chosen)) == 4
    assert distance(histograms, chosen, slices) <= others[len(others) // 10]


def test_each_step_takes_what_comes_nearest() -> None:
    histograms = random_histograms(8, 3)
    chosen = choose_samples(histograms, 4)
    for step in range(4):
        before = chosen[:step]
        rest = [each for each in range(8) if each not in before]
        assert chosen[step] == min(rest, key=lambda each: distance(histograms, [*before, each]))


def test_every_slice_gets_a_sample_even_where_there_are_as_many_as_samples() -> None:
    histograms = random_histograms(40, 0)
    slices = ["day"] * 37 + ["night", "rain", "snow"]
    for count in (4, 6, 20):
        assert {slices[place] for place in choose_samples(histograms, count, slices)} == set(slices)
    assert sorted(choose_samples(histograms, 100, slices)) == list(range(40))


def test_one_loud_sample_of_many_does_not_decide() -> None:
    torch.manual_seed(0)
    network = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval(), (torch.zeros(1, 1, 8, 8),))
    samples = [(torch.randn(1, 1, 8, 8),) for _ in range(40)]
    samples[31] = (samples[31][0] * 20,)
    refs = [ref for ref in network.graph.tensors if not network.graph.is_constant(ref)]
    assert 31 not in choose_samples(histograms_of(network, refs, samples), 6)


def test_histograms_are_those_of_the_tensors() -> None:
    network = capture(nn.ReLU(), (torch.zeros(1, 6),))
    (given,), (made,) = network.graph.inputs, network.graph.outputs
    found = histograms_of(network, [given, made], [(torch.tensor([[-4.0, -0.3, 0.5, 0.55, 3.0, 0.0]]),)])
    assert found.sum(2)[0].tolist() == pytest.approx([1.0, 1.0])
    # 0.5 and 0.55 lie in [2^-1, 2^-0.75): one bin with a third of the input's values; of the result zeros fill half.
    assert float(found[0, 0].max()) == pytest.approx(2 / 6)
    assert float(found[0, 1].max()) == pytest.approx(3 / 6)
