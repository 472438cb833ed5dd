import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback
from bitwright.qat.format_search import FormatSearch, SearchSettings
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.formats import get_format
from bitwright.quant.graph import Graph
from bitwright.quant.mixed_precision.formats import FLOAT, LayerFormat
from bitwright.quant.mixed_precision.problem import Problem
from bitwright.quant.plan import QuantPlan
from bitwright.quant.ptq import quantize

from .conftest import batch

SCHEME = load_target("x86-vnni").scheme()
INT8 = LayerFormat(name="int8")
NARROW_WEIGHTS = LayerFormat(name="w2", weights=replace(SCHEME.weights, format=get_format("int2"), observer="mse"))
NARROW_RESULTS = LayerFormat(name="a2", activations=replace(SCHEME.activations, format=get_format("uint2")))


def weight_bytes(graph: Graph, plan: QuantPlan) -> float:
    return sum(graph.tensors[ref].elements * spec.format.bits / 8 for ref, spec in plan.weights.items())


def activation_bits(graph: Graph, plan: QuantPlan) -> float:
    """Of what layers hand on: the input and each tensor count alike."""
    return float(sum(spec.format.bits for spec in plan.activations.values()))


class Branches(nn.Module):
    """Two ways from input to result, of which the second hardly counts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(12, 16), nn.ReLU()) for _ in "ab")
        self.of_a, self.of_b = nn.Linear(16, 4), nn.Linear(16, 4)
        with torch.no_grad():
            self.of_b.weight.mul_(0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of_a(self.a(x)) + self.of_b(self.b(x))


def network() -> nn.Module:
    torch.manual_seed(3)
    return Branches()


X = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))


def brute_force(
    other: LayerFormat, cost: Callable[[Graph, QuantPlan], float], budget: float
) -> tuple[dict[str, str], float]:
    """The best of all choices within the budget, each quantized after training and run."""
    truth = network()
    captured = capture(truth, (X,))
    problem = Problem(graph=captured.graph, scheme=SCHEME, formats=(INT8, other), allowed=(INT8.name, other.name))
    best = ({}, float("inf"))
    for picks in itertools.product((INT8.name, other.name), repeat=len(problem.groups)):
        assignment = dict(zip(problem.groups, picks, strict=True))
        if cost(captured.graph, problem.plan(assignment)) > budget:
            continue
        scheme = problem.mixed_scheme(assignment)
        quantized = quantize(captured, scheme, [X], bias_correction=False)
        loss = float(F.mse_loss(quantized.run(X), truth(X).detach()))
        if loss < best[1]:
            best = (assignment, loss)
    return best


@pytest.mark.parametrize(
    ("other", "cost", "budget"),
    [(NARROW_WEIGHTS, weight_bytes, 330.0), (NARROW_RESULTS, activation_bits, 40.0)],
    ids=["weights", "activations"],
)
def test_it_finds_what_trying_everything_finds(
    other: LayerFormat, cost: Callable[[Graph, QuantPlan], float], budget: float
) -> None:
    truth, model = network(), network()
    settings = SearchSettings(steps=200, multiplier_rate=0.04)
    search = FormatSearch(model, SCHEME, (INT8, other), [(X,)], cost=cost, budget=budget, search=settings)
    optimizer = torch.optim.Adam(search.parameters(), lr=0.06)
    torch.manual_seed(0)
    scale = float(truth(X).detach().var())
    for _ in range(settings.steps):
        optimizer.zero_grad()
        (F.mse_loss(model(X), truth(X).detach()) / scale + search.penalty()).backward()
        optimizer.step()
        search.on_step()
    assert search.assignment(search.chosen()) == brute_force(other, cost, budget)[0]
    before = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    search.finish()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert list(model.state_dict()) == list(before)


def searching(model: nn.Module, formats: tuple[LayerFormat, ...], budget: float, **options: object) -> FormatSearch:
    cost = options.pop("cost", weight_bytes)
    return FormatSearch(
        model, SCHEME, formats, [(batch()[0],)], cost=cost, budget=budget, search=SearchSettings(steps=10)
    )


def test_the_choice_keeps_the_budget_and_trains_on(everything: nn.Module) -> None:
    """Weights and activations of a residual network with concat; all that shares a scale decides as one."""
    wide = LayerFormat(
        name="int16", activations=replace(SCHEME.activations, format=get_format("int16"), symmetric=True)
    )
    narrow = LayerFormat(name="int4", weights=replace(SCHEME.weights, format=get_format("int4"), observer="mse"))

    def cost(graph: Graph, plan: QuantPlan) -> float:
        return weight_bytes(graph, plan) + activation_bits(graph, plan)

    folded = capture(everything, (batch(1)[0],))
    everything_int8 = cost(
        folded.graph, Problem(graph=folded.graph, scheme=SCHEME, formats=(INT8,), allowed=("int8",)).base_plan
    )
    keys = list(everything.state_dict())
    search = searching(everything, (INT8, narrow, wide), 0.9 * everything_int8, cost=cost)
    tied = {group for tie in search.problem.ties for group in tie.groups}
    assert any(tied <= set(groups) for groups in search.units.values()) and len(tied) > 1
    with torch.no_grad():  # the search has come to want all kinds
        for place, each in enumerate(search.deciding.values()):
            each.logits[place % 3] = 1.0
    x, labels = batch()
    everything.train()
    F.cross_entropy(everything(x), labels).backward()
    assert all(each.logits.grad is not None and bool(each.logits.grad.any()) for each in search.deciding.values())
    assert search.cost(search.chosen()) <= search.budget
    mixed = SCHEME.with_overrides(*search.finish())
    assert list(everything.state_dict()) == keys
    qat = QATCallback(everything, torch.optim.Adam(everything.parameters()), scheme=mixed, calibration=[x])
    assert {spec.format.name for spec in qat.quant_plan.weights.values()} == {"int8", "int4"}
    assert {spec.format.name for spec in qat.quant_plan.activations.values()} >= {"int16"}
    assert cost(folded.graph, qat.quant_plan) <= search.budget
    qat.finish()


@pytest.mark.parametrize(
    ("formats", "budget", "message"),
    [
        ((INT8, NARROW_WEIGHTS), 1.0, "budget = 1; the cheapest formats of all layers cost 128 together"),
        ((INT8,), 1e9, "formats ['int8']; give two formats at least"),
        ((INT8, FLOAT), 1e9, "format 'float32' has no codes that a gradient could choose; leave it out"),
    ],
)
def test_what_it_refuses(formats: tuple[LayerFormat, ...], budget: float, message: str) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        FormatSearch(model, SCHEME, formats, [(X,)], cost=weight_bytes, budget=budget, search=SearchSettings(steps=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_cost_that_does_not_know_the_formats_is_refused() -> None:
    message = (
        "the cost of this network is 7 whichever of formats ['int8', 'w2'] its layers have, so that no budget can "
        "choose between them; give a cost that knows them, such as size"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        FormatSearch(
            network(),
            SCHEME,
            (INT8, NARROW_WEIGHTS),
            [(X,)],
            cost=lambda graph, plan: 7.0,
            budget=9.0,
            search=SearchSettings(steps=1),
        )
