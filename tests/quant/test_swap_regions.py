"""Regions in the user's running model: whose calls are swapped, and that the model comes back as it was."""

from typing import Any

import pytest
import torch
from torch import nn

from bitwright.quant.errors import InputError
from bitwright.quant.parity_measures.region_metric import ALL, region_effects
from bitwright.quant.regions import Regions, find_regions
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.swap_regions import quantize_regions, swapped


class Gate(nn.Module):
    """Python decides on the data, so that it is not captured whole; the head is called with two shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
        self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        x = self.stem(x)
        if x.mean() > 1e6:
            return x
        return self.head(x) * scale + self.head(x[:1])


@pytest.fixture(scope="module", name="pieces")
def _pieces() -> tuple[Gate, Regions, list[Any]]:
    torch.manual_seed(0)
    model = Gate().eval()
    samples: list[Any] = [((torch.randn(4, 6),), {"scale": 2.0}) for _ in range(6)]
    return model, find_regions(model, *samples[0]), samples


def test_only_calls_with_the_arguments_of_the_region_are_swapped(pieces: Any) -> None:
    model, regions, samples = pieces
    assert [region.name for region in regions.regions] == ["stem", "head", "head#2"]
    (args, kwargs) = samples[0]
    with torch.no_grad():
        inner = model.stem(*args)
        with swapped(model, regions.regions, {"head#2": lambda x: torch.zeros(1, 3)}):
            found = model(*args, **kwargs)
        assert torch.equal(found, model.head(inner) * 2.0)
        assert torch.equal(model(*args, **kwargs), model.head(inner) * 2.0 + model.head(inner[:1]))


def test_the_model_is_what_it_was_also_after_an_error(pieces: Any) -> None:
    model, regions, _ = pieces
    model.train()
    with pytest.raises(RuntimeError, match="in between"), swapped(model, regions.regions, {"stem": lambda x: x}):
        assert not model.training
        raise RuntimeError("in between")
    assert model.training and "forward" not in model.stem.__dict__
    model.eval()


def test_an_unknown_region_is_said_with_those_there_are(pieces: Any) -> None:
    model, regions, _ = pieces
    with (
        pytest.raises(InputError, match=r"'neck'.*head, head#2, stem|'neck'.*stem"),
        swapped(model, regions.regions, {"neck": lambda x: x}),
    ):
        pass


def test_no_samples_is_said(pieces: Any, u8s8: QuantScheme) -> None:
    with pytest.raises(InputError, match="give at least one sample"):
        quantize_regions(pieces[0], pieces[1].regions, u8s8, [])


def test_each_region_alone_and_all_together_stay_within_what_the_formats_explain(pieces: Any, u8s8: Any) -> None:
    model, regions, samples = pieces
    quantized = quantize_regions(model, regions.regions, u8s8, samples[:4])
    found = list(region_effects(model, regions.regions, quantized, samples[4:], _off))
    assert [each.region for each in found] == ["stem", "head", "head#2", ALL]
    assert all(each.agrees and each.seen > 0 for each in found)


def test_a_region_that_computes_something_else_where_it_is_deployed_is_named(pieces: Any, u8s8: Any) -> None:
    model, regions, samples = pieces
    quantized = quantize_regions(model, regions.regions, u8s8, samples[:4])
    wrong = {"head": lambda x: 1.2 * quantized["head"].run(x)}
    stem, head, second, _ = region_effects(model, regions.regions, quantized, samples[4:], _off, deployed=wrong)
    assert stem.agrees and not head.agrees and second.agrees


def _off(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).square().mean().sqrt())
