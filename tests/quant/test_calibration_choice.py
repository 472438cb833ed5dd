"""The choice of calibration samples: near the best by brute force, and it finds what only few samples show."""

import itertools

import pytest
import torch
from torch import nn

from bitwright.quant.calibration_choice import Traits, choose_samples, traits_of
from bitwright.quant.capture import capture


def value(traits: Traits, chosen: list[int], slices: list[str] | None) -> float:
    """f of the module's docstring, written out."""
    count, tensors, _ = traits.histograms.shape
    names = sorted(set(slices)) if slices else ["all"]
    of = slices or ["all"] * count
    total = 0.0
    for i in range(count):
        near = max(
            float((traits.histograms[i].sqrt() * traits.histograms[j].sqrt()).sum()) / tensors for j in chosen
        )  # fmt: skip
        total += near / (len(names) * of.count(of[i]))
    most = traits.extremes.amax(0)
    reached = traits.extremes[chosen].amax(0)
    total += float((reached[most > 0] / most[most > 0]).mean())
    return total + len({of[j] for j in chosen}) / len(names)


def random_traits(count: int, seed: int) -> Traits:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(count, 3, 8, generator=generator) ** 4
    return Traits(torch.rand(count, 6, generator=generator), shares / shares.sum(2, keepdim=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sliced", [False, True])
def test_greedy_comes_as_near_to_the_best_as_its_bound_promises(seed: int, sliced: bool) -> None:
    traits = random_traits(9, seed)
    slices = ["day"] * 6 + ["night"] * 2 + ["rain"] if sliced else None
    chosen = choose_samples(traits, 3, slices)
    best = max(value(traits, list(each), slices) for each in itertools.combinations(range(9), 3))
    assert len(set(chosen)) == 3
    assert value(traits, chosen, slices) >= (1 - 1 / torch.e) * best
    assert value(traits, chosen, slices) >= 0.95 * best  # what greedy reaches in practice


def test_each_step_takes_what_adds_most() -> None:
    traits = random_traits(8, 3)
    chosen = choose_samples(traits, 4)
    for step in range(4):
        before = chosen[:step]
        rest = [each for each in range(8) if each not in before]
        assert chosen[step] == max(rest, key=lambda each: value(traits, [*before, each], None))


def test_every_slice_gets_a_sample_and_the_loudest_sample_is_among_them() -> None:
    torch.manual_seed(0)
    network = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval(), (torch.zeros(1, 1, 8, 8),))
    samples = [(torch.randn(1, 1, 8, 8),) for _ in range(40)]
    samples[31] = (samples[31][0] * 20,)
    slices = ["day"] * 38 + ["night", "rain"]
    refs = [ref for ref in network.graph.tensors if not network.graph.is_constant(ref)]
    traits = traits_of(network, refs, samples)
    assert float(traits.extremes.amax()) == pytest.approx(float(max(x.abs().max() for (x,) in samples)), rel=0.7)
    chosen = choose_samples(traits, 6, slices)
    assert {38, 39, 31} <= set(chosen)
    assert choose_samples(traits, 100, slices).__len__() == 40


def test_extremes_and_histograms_are_those_of_the_tensors() -> None:
    network = capture(nn.ReLU(), (torch.zeros(1, 6),))
    (given,), (made,) = network.graph.inputs, network.graph.outputs
    traits = traits_of(network, [given, made], [(torch.tensor([[-4.0, -0.3, 0.5, 0.6, 3.0, 0.0]]),)])
    assert traits.extremes.tolist() == [[4.0, 3.0, 0.0, 3.0]]
    assert traits.histograms.sum(2)[0].tolist() == pytest.approx([1.0, 1.0])
    # 0.5 and 0.6 lie in [2^-1, 2^0): one bin with a third of the input's values.
    assert float(traits.histograms[0, 0].max()) == pytest.approx(2 / 6)
