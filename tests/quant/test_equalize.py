"""Channels scaled towards like ranges: the same results, in fewer steps of rounding."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_spaces import channel_axes, channel_spaces
from bitwright.quant.equalize import Balance, ChannelStatistics, Equalized, equalize
from bitwright.quant.equalize_choice import equalization_helps
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.sensitivity import channel_sensitivity


class Inverted(nn.Module):
    """An inverted residual block between two convolutions, a pool and a classifier; channels of unlike sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU())
        self.project, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 5)
        for layer in (self.stem[0], self.expand[0], self.depthwise[0], self.project):
            layer.weight.data *= 2.0 ** torch.randint(-4, 3, (layer.weight.shape[0], 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture
def captured() -> CapturedModel:
    return fold_batch_norm(capture(Inverted().eval(), (torch.zeros(1, 3, 12, 12),)))


def samples(count: int = 6) -> list[tuple[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, 12, 12, generator=generator),) for _ in range(count)]


def seen_and_felt(
    captured: CapturedModel, data: list[tuple[torch.Tensor]]
) -> tuple[dict[TensorRef, torch.Tensor], ChannelStatistics]:
    axes = channel_axes(captured.graph)
    seen = ChannelStatistics(axes)
    return channel_sensitivity(captured, axes, data, watch=seen.note), seen


def equalized(captured: CapturedModel, scheme: QuantScheme, data: list[tuple[torch.Tensor]] | None = None) -> Equalized:
    return equalize(captured, scheme, *seen_and_felt(captured, data or samples()))


def test_statistics_are_those_of_the_tensors(captured: CapturedModel) -> None:
    """Of one run after the other, and the typical energy stays what it is when channels and weights are scaled."""
    axes = channel_axes(captured.graph)
    found: dict[TensorRef, list[torch.Tensor]] = {ref: [] for ref in axes}

    def keep(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in found:
            found[ref].append(tensor.movedim(axes[ref], 0).flatten(1))
        return tensor

    for arguments in samples(5):
        captured.run(*arguments, transform=keep)
    _, seen = seen_and_felt(captured, samples(5))
    for ref, rows in found.items():
        stacked = torch.stack(rows)
        torch.testing.assert_close(seen.low(ref), stacked.amin(2).mean(0))
        torch.testing.assert_close(seen.high(ref), stacked.amax(2).mean(0))
        torch.testing.assert_close(seen.power(ref), stacked.square().mean((0, 2)))
        assert torch.equal(seen.reached[ref], stacked.abs().amax((0, 2)))
        weights = torch.rand(stacked.shape[1])
        energies = (stacked.square().mean(2) @ weights).sort().values
        assert seen.typical_energy(ref, weights) == pytest.approx(float(energies[2]))


def test_sensitivity_follows_the_factors(captured: CapturedModel, u8s8: QuantScheme) -> None:
    axes = channel_axes(captured.graph)
    before, seen = seen_and_felt(captured, samples())
    found = equalize(captured, u8s8, before, seen)
    again, followed = channel_sensitivity(found.captured, axes, samples()), found.sensitivity(before)
    assert any(not torch.equal(before[ref], followed[ref]) for ref in before)
    assert again.keys() == followed.keys()
    for ref, cost in again.items():
        torch.testing.assert_close(followed[ref], cost, rtol=1e-3, atol=1e-3 * float(cost.max()))


def test_the_gradient_of_the_balance_is_that_of_its_formula(captured: CapturedModel, u8s8: QuantScheme) -> None:
    sensitivity, statistics = seen_and_felt(captured, samples())
    for space in channel_spaces(captured.graph):
        balance = Balance(space, captured, captured.values, statistics, sensitivity, u8s8)
        point = torch.randn(space.channels, requires_grad=True)
        scale, expected = point.exp(), torch.zeros(())
        for low, high, cost in balance.tensors:
            width = (high / scale).amax() - (low / scale).amin()
            expected = expected + (width / 255).square() * (scale.square() * cost).sum()
        for reader in balance.readers:
            steps = (reader.largest * scale).amax(1) / 127
            expected = expected + (steps.square() * reader.cost).sum() * (reader.power / scale.square()).sum()
        (gradient,) = torch.autograd.grad(expected, [point])
        found, slope = balance.cost(point.detach())
        assert found == pytest.approx(float(expected.detach()), rel=1e-5)
        torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_spaces_run_from_weights_to_weights(captured: CapturedModel) -> None:
    found = {
        tuple(sorted({use.node.module_path for use in space.makers})): (
            sorted(use.node.module_path for use in space.readers),
            space.ceiling,
        )
        for space in channel_spaces(captured.graph)
    }
    assert found == {
        ("expand.0",): (["depthwise.0"], 6.0),
        ("depthwise.0",): (["project"], float("inf")),
        ("project", "stem.0"): (["expand.0", "head"], 6.0),
    }


def test_what_is_not_homogeneous_ends_a_space() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    (space,) = channel_spaces(capture(model, (torch.zeros(1, 3, 4, 4),)).graph)
    assert [use.node.module_path for use in space.makers] == ["2"]


def test_a_result_of_the_network_keeps_its_scale() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x)
            return y, self.b(y)

    assert channel_spaces(capture(Shown().eval(), (torch.zeros(1, 3, 4, 4),)).graph) == ()


def test_the_network_stays_the_same(captured: CapturedModel, u8s8: QuantScheme) -> None:
    after = equalized(captured, u8s8).captured
    weights = {ref: name for ref, name in captured.value_refs.items() if str(ref).endswith("weight")}
    assert any(not torch.equal(captured.values[name], after.values[name]) for name in weights.values())
    for arguments in samples(20):
        expected = captured.run(*arguments)
        assert float((after.run(*arguments) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_channels_stay_below_a_clamp_that_they_did_not_reach(captured: CapturedModel, u8s8: QuantScheme) -> None:
    after = equalized(captured, u8s8).captured
    node = next(each for each in captured.graph.nodes if each.op == "hardtanh" and each.module_path == "expand.1")

    def reached(network: CapturedModel) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def watch(ref: object, tensor: torch.Tensor) -> torch.Tensor:
            if ref == node.outputs[0]:
                seen.append(tensor.amax((0, 2, 3)))
            return tensor

        for arguments in samples():
            network.run(*arguments, transform=watch)
        return torch.stack(seen).amax(0)

    before, behind = reached(captured), reached(after)
    free = before < 6.0 / 1.25
    assert free.any() and (behind[free] <= 6.0 / 1.25 + 1e-5).all() and (behind >= before - 1e-6).all()


def test_rounding_costs_less(captured: CapturedModel, u8s8: QuantScheme) -> None:
    def noise(equalization: bool) -> float:
        model = quantize(captured, u8s8, [each[0] for each in samples(32)], equalization=equalization)
        return sum(float((model.run(*each) - captured.run(*each)).square().sum()) for each in samples(64))

    assert noise(True) < 0.7 * noise(False)


def test_sensitivity_is_the_squared_jacobian(captured: CapturedModel) -> None:
    """Against the Jacobian itself, of the expanded channels."""
    node = next(each for each in captured.graph.nodes if each.module_path == "expand.0")
    ref = node.outputs[0]
    ((x,),) = samples(1)
    found = channel_sensitivity(captured, {ref: 1}, [(x,)], projections=400)[ref]
    start: list[torch.Tensor] = []
    captured.run(x, transform=lambda r, t: (start.append(t) if r == ref else None, t)[1])

    def results(inner: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = captured.execute(x, transform=lambda r, t: inner if r == ref else t)
        return result

    jacobian = torch.autograd.functional.jacobian(results, start[0])
    expected = jacobian.square().sum((0, 1, 2, 4, 5))
    torch.testing.assert_close(found, expected, rtol=0.25, atol=float(expected.max()) * 0.02)


class Words(nn.Module):
    """Linear layers, whose channels stand last, around a pool that may lie along them."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.pool = nn.Linear(6, 8), nn.Linear(8, 3), pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(self.pool(torch.relu(self.a(x))))
        return result


@pytest.mark.parametrize(
    ("pool", "shape"),
    [(lambda x: F.max_pool1d(x, 3, 1, 1), (1, 5, 6)), (lambda x: F.avg_pool2d(x, 3, 1, 1), (1, 5, 5, 6))],
)
def test_a_pool_along_the_channels_ends_a_space(
    pool: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> None:
    assert channel_spaces(capture(Words(pool).eval(), (torch.zeros(shape),)).graph) == ()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 4, 3)), (1, 3, 12)),
        (Words(torch.relu), (1, 5, 7, 6)),
        (nn.Sequential(nn.Conv3d(3, 8, 2), nn.ReLU(), nn.Conv3d(8, 4, 1)), (1, 3, 4, 4, 4)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)), (3, 8, 8)),
    ],
)
def test_channels_are_found_where_layers_have_them(model: nn.Module, shape: tuple[int, ...], u8s8: QuantScheme) -> None:
    """Of sequences, of tokens on a grid, of volumes, of images without a batch."""
    first, *_ = (each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d))
    first.weight.data *= (2.0 ** torch.arange(-4, 4)).reshape(-1, *(1,) * (first.weight.dim() - 1))
    data = [(torch.randn(shape),) for _ in range(4)]
    network = capture(model.eval(), data[0])
    (space,) = channel_spaces(network.graph)
    axes = channel_axes(network.graph)
    assert space.channels == 8 and {ref: axes[ref] for ref in space.tensors} == dict(space.tensors)
    after = equalized(network, u8s8, data).captured
    assert any(not torch.equal(network.values[name], after.values[name]) for name in network.values)
    for arguments in data:
        torch.testing.assert_close(after.run(*arguments), network.run(*arguments), rtol=1e-5, atol=1e-5)
    quantize(network, u8s8, [each[0] for each in data], equalization=True)


def test_a_silent_channel_below_a_clamp_keeps_its_scale(u8s8: QuantScheme) -> None:
    """It may reach the bound with the next image."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU6(), nn.Conv2d(8, 4, 1)).eval()
    model[0].weight.data *= (2.0 ** torch.arange(-4, 4)).reshape(8, 1, 1, 1)
    model[0].weight.data[2] = torch.tensor([[[0.0]], [[0.0]], [[5.0]]])
    model[0].bias.data[2] = 0.0
    quiet = [(torch.randn(1, 3, 6, 6) * torch.tensor([1.0, 1.0, 0.0]).reshape(1, 3, 1, 1),) for _ in range(4)]
    network = capture(model, quiet[0])
    after = equalized(network, u8s8, quiet).captured
    (name,) = (name for ref, name in network.value_refs.items() if str(ref) == "0.weight")
    assert torch.equal(after.values[name][2], network.values[name][2])
    assert not torch.equal(after.values[name], network.values[name])


def test_results_that_follow_nothing_smoothly_leave_the_network_alone(u8s8: QuantScheme) -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x).argmax(1)

    network = capture(Classes().eval(), samples(1)[0])
    assert channel_sensitivity(network, channel_axes(network.graph), samples()) == {}
    quantize(network, u8s8, [each[0] for each in samples()], equalization=True)


def test_a_gradient_without_an_end_is_no_sensitivity() -> None:
    class Rooted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(torch.relu(x) * 0) + x

    network = capture(Rooted().eval(), samples(1)[0])
    found = channel_sensitivity(network, channel_axes(network.graph), samples())
    assert found and all(values.isfinite().all() for values in found.values())


def test_no_data_is_said(captured: CapturedModel, u8s8: QuantScheme) -> None:
    with pytest.raises(InputError, match=r"^calibration got no batch; give at least one$"):
        quantize(captured, u8s8, [], equalization=True)


def test_only_channels_that_bring_the_results_nearer_are_kept(captured: CapturedModel, u8s8: QuantScheme) -> None:
    better = equalized(captured, u8s8).captured
    assert equalization_helps(captured, better, {}, u8s8, samples())
    assert not equalization_helps(better, captured, {}, u8s8, samples())
    assert not equalization_helps(captured, captured, {}, u8s8, samples())


def test_auto_is_one_of_both(captured: CapturedModel, u8s8: QuantScheme) -> None:
    asked, plain, auto = (
        quantize(captured, u8s8, samples(), bias_correction=False, equalization=wish).captured.values
        for wish in (True, False, "auto")
    )
    assert any(not torch.equal(asked[name], plain[name]) for name in plain)
    assert all(torch.equal(asked[name], auto[name]) for name in asked)  # of channels of so unlike sizes
