import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback
from bitwright.qat.format_search import FormatSearch, SearchSettings, size_cost
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import get_format
from bitwright.quant.weights import choose_weight_qparams

SPEC = load_target("x86-vnni").scheme().weights
FORMATS = ("int8", "int2")


def network() -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Sequential(
        nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4)
    )
    with torch.no_grad():
        layers[2].weight.mul_(0.02)  # what it computes hardly counts
    return layers


def loss_of(model: nn.Module, truth: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(x), truth(x).detach())


def brute_force(budget: float) -> tuple[dict[str, str], float]:
    """The best of all sixteen choices within the budget, each tried."""
    truth, x = network(), torch.randn(256, 12, generator=torch.Generator().manual_seed(0))
    cost, best = size_cost(truth), ({}, float("inf"))
    names = [name for name, module in truth.named_modules() if isinstance(module, nn.Linear)]
    for picks in itertools.product(FORMATS, repeat=len(names)):
        if sum(cost(name, fmt) for name, fmt in zip(names, picks, strict=True)) > budget:
            continue
        model = network()
        for name, fmt in zip(names, picks, strict=True):
            weight = model.get_submodule(name).weight
            qparams = choose_weight_qparams(
                weight.detach(), type(SPEC)(**{**vars(SPEC), "format": get_format(fmt), "observer": "mse"}), 0
            )
            with torch.no_grad():
                weight.copy_(fake_quantize(weight, qparams))
        loss = float(loss_of(model, truth, x))
        if loss < best[1]:
            best = (dict(zip(names, picks, strict=True)), loss)
    return best


@pytest.mark.parametrize("budget", [400.0, 300.0])
def test_it_finds_what_trying_everything_finds(budget: float) -> None:
    truth, model = network(), network()
    x = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))
    settings = SearchSettings(steps=400, multiplier_rate=0.02)
    search = FormatSearch(model, spec=SPEC, formats=FORMATS, cost=size_cost(truth), budget=budget, search=settings)
    optimizer = torch.optim.Adam(search.parameters(), lr=0.03)
    torch.manual_seed(0)
    scale = float(truth(x).detach().square().mean())
    for _ in range(settings.steps):
        optimizer.zero_grad()
        (loss_of(model, truth, x) / scale + search.penalty()).backward()
        optimizer.step()
        search.on_step()
    assert dict(search.chosen()) == brute_force(budget)[0]
    before = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    search.finish()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_choice_keeps_the_budget_and_trains_on(everything: nn.Module) -> None:
    scheme = load_target("x86-vnni").scheme()
    cost = size_cost(everything)
    layers = [name for name, module in everything.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    budget = 0.75 * sum(cost(name, "int8") for name in layers)
    search = FormatSearch(
        everything,
        spec=scheme.weights,
        formats=("int8", "int4"),
        cost=cost,
        budget=budget,
        search=SearchSettings(steps=10),
    )
    assert sum(cost(name, fmt) for name, fmt in search.chosen().items()) <= budget
    mixed = scheme.with_overrides(*search.finish())
    x = torch.randn(4, 3, 8, 8)
    qat = QATCallback(everything, torch.optim.Adam(everything.parameters()), scheme=mixed, calibration=[x])
    found = {spec.format.name for spec in qat.quant_plan.weights.values()}
    assert found == {"int8", "int4"}
    qat.finish()


def test_what_it_refuses() -> None:
    model = network()
    with pytest.raises(InputError, match="budget = 1; the cheapest formats of all layers cost 120 together"):
        FormatSearch(
            model, spec=SPEC, formats=FORMATS, cost=size_cost(model), budget=1.0, search=SearchSettings(steps=1)
        )
    with pytest.raises(InputError, match="give two formats and a layer at least"):
        FormatSearch(
            model, spec=SPEC, formats=("int8",), cost=size_cost(model), budget=1e9, search=SearchSettings(steps=1)
        )
