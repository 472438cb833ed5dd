"""Training with ReLUs that rest is training with ReLUs that run, bit by bit."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule, rectifiers
from bitwright.quant.kept_activations import BatchNormResult, Inside
from bitwright.quant.learned_steps import Grid, RoundActivation

from .conftest import Everything, batch, plain_sequential, settled


def with_relu6() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Conv2d(8, 8, 1), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "everything": Everything, "relu6": with_relu6, "relu6_and_hardswish": plain_sequential,
}  # fmt: skip


def trained(model: nn.Module, method: str, freeze: int | None) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    qat = QATCallback(
        model,
        optimizer,
        scheme=load_target("x86-vnni").scheme(),
        calibration=[batch()],
        method=method,
        schedule=QATSchedule(freeze_batch_norm_after=freeze),
    )
    gradients = {}
    for seed in range(3):
        x, labels = batch(seed=seed)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x * 3), labels).backward()
        gradients |= {f"{seed}.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
    return {**gradients, **qat.model.state_dict()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("method", "freeze"), [("lsq", 0), ("lsq", None), ("ranges", 0), ("ranges", None)])
def test_no_bit_changes(name: str, method: str, freeze: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = settled(NETWORKS[name]())
    rested: list[str] = []
    own = rectifiers.can_rest

    def counted(kind: str, *args: object) -> bool:
        rests = own(kind, *args)
        rested.extend([kind] * rests)
        return rests

    for place in ("replay", "call_sites"):
        monkeypatch.setattr(f"bitwright.qat.{place}.can_rest", counted)
    resting = trained(copy.deepcopy(model), method, freeze)
    assert rested
    for place in ("replay", "call_sites"):
        monkeypatch.setattr(f"bitwright.qat.{place}.can_rest", lambda *_: False)
    running = trained(model, method, freeze)
    # A batch norm's result that is computed again may differ in its last bit, and then fall on another side of a tie.
    rtol, atol = (2e-3, 5e-5) if method == "lsq" and freeze is None else (0.0, 0.0)
    for key, tensor in running.items():
        torch.testing.assert_close(resting[key], tensor, rtol=rtol, atol=atol, msg=lambda text, key=key: key + text)


def test_who_looks_at_a_relu_sees_what_it_returns() -> None:
    """Features of a hidden ReLU, such as a distillation's, are never negative."""
    torch.manual_seed(0)
    model = settled(Everything())
    qat = QATCallback(model, None, target="x86-vnni", calibration=[batch()])
    seen: list[torch.Tensor] = []
    handle = model.blocks[0].relu.register_forward_hook(lambda module, args, result: seen.append(result))
    model.train()(batch()[0])
    handle.remove()
    assert float(seen[0].min()) == 0
    qat.finish()
    assert type(model.blocks[0].relu) is nn.ReLU and not hasattr(model.blocks[0].relu, "returned")


@pytest.mark.parametrize(("ceiling", "scale"), [(6.0, 0.02), (6.0, 0.0235), (6.0, 0.05), (None, 0.01)])
def test_a_ceiling_is_a_relu6_before_it(ceiling: float | None, scale: float) -> None:
    """Values and both gradients against autograd through a ReLU6 that runs, in float64 sums."""
    torch.manual_seed(0)
    x = (torch.randn(4, 8, 8, 8) * 6).requires_grad_()
    above = torch.randn_like(x)
    grid, step = Grid(0.0, 255.0), torch.tensor(scale, requires_grad=True)
    own = RoundActivation.apply(x, step, None, grid, False, ceiling)
    by_x, by_step = torch.autograd.grad(own, (x, step), above)
    clipped = F.relu(x) if ceiling is None else F.relu6(x)
    theirs = RoundActivation.apply(clipped, step, None, grid, False, None)
    assert torch.equal(own, theirs)
    assert torch.equal(by_x, torch.autograd.grad(theirs, x, above)[0])
    v = clipped.detach().double() / step.detach().double()
    codes = torch.round(clipped.detach() / step.detach()).clamp(0, 255).double()
    slope = torch.where((v > 0) & (v < 255), codes - v, codes)
    assert float(by_step) == pytest.approx(float((slope * above.double()).sum()), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bits_stop_a_gradient_even_where_it_is_infinite(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7).to(memory_format=layout)
    gradient = torch.randn(2, 3, 5, 7)
    gradient[0, 0, 0, :3] = torch.tensor([float("inf"), float("nan"), -0.0])
    low, high = torch.tensor(-0.5), torch.tensor(1.0)
    inside = Inside.of(x, low, high)
    assert inside.mask.numel() == -(-x.numel() // 8)
    expected = torch.where((x > low) & (x < high), gradient, 0.0)
    assert torch.equal(inside.passed(gradient).nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norms_result_is_computed_again(affine: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6, affine=affine).train()
    if affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.uniform_(norm.bias, -2, 2)
    x = norm((torch.randn(4, 6, 5, 5) * 3 + 1).to(memory_format=layout).requires_grad_())
    found = BatchNormResult.of(x)
    assert found is not None
    step = torch.tensor(0.3)
    parts = list(found.divided(step, 3))
    assert [len(part) for part in parts] == [3, 1]
    torch.testing.assert_close(torch.cat(parts), x.detach() / step, rtol=1e-5, atol=1e-5)
    assert BatchNormResult.of(x * 2) is None
    assert BatchNormResult.of(norm.eval()(torch.randn(4, 6, 5, 5).requires_grad_())) is None
    with_gaps = torch.randn(4, 12, 5, 5).requires_grad_()[:, ::2]
    assert BatchNormResult.of(norm.train()(with_gaps)) is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rounding_behind_a_batch_norm_has_the_gradients_of_rounding_its_result(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16).train()
    images = torch.randn(9, 16, 32, 32).to(memory_format=layout).requires_grad_()  # three pieces, the last one short
    x = norm(images)
    assert BatchNormResult.of(x) is not None
    alone = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    above, grid = torch.randn(9, 16, 32, 32), Grid(0.0, 255.0)
    steps = [torch.tensor(0.007, requires_grad=True) for _ in range(2)]
    behind = RoundActivation.apply(x, steps[0], None, grid, False, None)
    by_x, by_step = torch.autograd.grad(behind, (x, steps[0]), above)
    of_values = RoundActivation.apply(alone, steps[1], None, grid, False, None)
    by_alone, by_its_step = torch.autograd.grad(of_values, (alone, steps[1]), above)
    assert torch.equal(behind, of_values)
    assert (by_x != by_alone).sum() <= 2  # a value at the very end of the range may fall on its other side
    assert float(by_step) == pytest.approx(float(by_its_step), rel=1e-3)
