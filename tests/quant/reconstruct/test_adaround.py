"""AdaRound's own arithmetic, and its search against all possible roundings."""

import itertools

import pytest
import torch

from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import Node
from bitwright.quant.reconstruct.adaround import (
    ROUNDING,
    STRENGTH,
    SoftRounding,
    beta_of,
    error,
    gradient,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
)
from bitwright.quant.reconstruct.grid import Grid
from bitwright.quant.reconstruct.layers import Layer
from bitwright.quant.reconstruct.method import LayerData, Positions, Seen
from bitwright.quant.reconstruct.moments import Moments
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.weights import choose_weight_qparams

INT4 = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL)
TERMS = 8


def test_the_rectified_sigmoid_reaches_its_ends_and_has_an_inverse() -> None:
    h = torch.linspace(0.0, 1.0, 21)
    torch.testing.assert_close(rectified_sigmoid(inverse_rectified_sigmoid(h)), h, atol=1e-5, rtol=0.0)
    assert rectified_sigmoid(torch.tensor([-9.0, 9.0])).tolist() == [0.0, 1.0]


def test_soft_weights_lie_between_their_neighbours() -> None:
    weight = torch.randn(1, 5, TERMS)
    grid = Grid.of(choose_weight_qparams(weight[0], INT4, 0), weight[0], lambda part: part.expand(5, TERMS)[None])
    soft, v = SoftRounding.of(weight, grid)
    torch.testing.assert_close(soft.weight(rectified_sigmoid(v)), weight, atol=1e-5, rtol=0.0)
    for h in (0.0, 1.0):
        neighbour = soft.weight(torch.full_like(weight, h))
        assert torch.equal(grid.nearest(neighbour), neighbour)
        assert ((neighbour - weight).abs() <= grid.scale + 1e-6).all()


def test_beta_falls_from_20_to_2_behind_the_warm_up() -> None:
    assert beta_of(0.1) is None
    assert beta_of(0.2) == pytest.approx(20.0)
    assert beta_of(1.0) == pytest.approx(2.0)


@pytest.mark.parametrize("bounds", [(-torch.inf, torch.inf), (0.0, 6.0)], ids=["linear", "relu6"])
@pytest.mark.parametrize("beta", [None, 7.5])
def test_the_gradient_is_that_of_autograd(bounds: tuple[float, float], beta: float | None) -> None:
    weight, bias = 4 * torch.randn(2, 3, TERMS), torch.randn(2, 3, 1)
    seen = Seen(torch.randn(2, TERMS, 40), 3 * torch.randn(2, 3, 40), torch.rand(40))
    qparams = choose_weight_qparams(weight.reshape(6, TERMS) / 2, INT4, 0)  # half of the weights lie beyond its ends
    grid = Grid.of(qparams, weight.reshape(6, TERMS), lambda part: part.expand(6, TERMS).reshape(2, 3, TERMS))
    soft, _ = SoftRounding.of(weight, grid)
    v = (3 * torch.randn(weight.shape)).requires_grad_(True)
    h = rectified_sigmoid(v)
    loss = error(soft.weight(h), bias, seen, bounds)
    if beta is not None:
        loss = loss + STRENGTH * (1.0 - (2.0 * h - 1.0).abs().pow(beta)).mean()
    (expected,) = torch.autograd.grad(loss, [v])
    assert soft.clipped.any() and not soft.clipped.all()
    torch.testing.assert_close(gradient(soft, v.detach(), bias, seen, bounds, beta), expected)


def layer_data(weight: torch.Tensor, columns: torch.Tensor, bounds: tuple[float, float]) -> LayerData:
    """A linear layer of one row whose inputs arrive as they are in float."""
    layer = Layer(
        node=Node(name="linear", op="linear", inputs=(), outputs=()),
        weight="w",
        bias=None,
        weight_shape=tuple(weight.shape),
        groups=1,
        bounds=bounds,
        positions=256,
    )
    positions, halves = Positions(), [Moments.empty(1, 1, TERMS) for _ in range(2)]
    for index, part in enumerate(columns.split(50, 1)):
        (share,) = halves[index % 2].add(part[None].clone(), torch.zeros(1, 1, part.shape[1]), (weight @ part)[None])
        positions.add(part[None], (weight @ part)[None], 1000)
        positions.shares[index] = share
    grid = Grid.of(choose_weight_qparams(weight, INT4, 0), weight, lambda part: part.expand(1, TERMS)[None])
    return LayerData(
        layer=layer,
        weight=weight[None],
        grid=grid,
        halves=halves,
        has_bias=False,
        bias=torch.zeros(1, 1),
        positions=positions,
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bounds", [(-torch.inf, torch.inf), (0.0, torch.inf)], ids=["linear", "relu"])
def test_it_comes_near_the_best_of_all_roundings(seed: int, bounds: tuple[float, float]) -> None:
    torch.manual_seed(seed)
    weight, columns = torch.randn(1, TERMS), torch.randn(TERMS, TERMS) @ torch.randn(TERMS, 400)
    data = layer_data(weight, columns, bounds)
    soft, _ = SoftRounding.of(weight[None], data.grid)
    truth = (weight @ columns).clamp(*bounds)

    def error(rounded: torch.Tensor) -> float:
        return float(((rounded @ columns).clamp(*bounds) - truth).square().mean())

    choices = itertools.product((0.0, 1.0), repeat=TERMS)
    every = sorted(error(soft.weight(torch.tensor(choice).reshape(1, 1, -1))[0]) for choice in choices)
    found = error(ROUNDING.round(data).weight[0])
    assert found <= error(data.grid.nearest(weight[None])[0])
    assert found <= every[len(every) // 20]  # among the best 5 % of all 256
