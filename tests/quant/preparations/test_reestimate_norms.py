"""Statistics behind quantized layers are those in float again, as NumPy measures them; codes stay."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.preparations.reestimate_norms import Seen
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(
                part
                for width in (3, 16, 16)
                for part in (nn.Conv2d(width, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Staying(nn.Module):
    """A norm behind an addition cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(torch.relu(self.norm(x + torch.relu(self.second(x)))))


def batches(count: int, first: int = 0) -> list[torch.Tensor]:
    return [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(first, count)]


@pytest.fixture
def w2(make_scheme: Callable[..., QuantScheme]) -> QuantScheme:
    return make_scheme("uint8", "int2")


def trained(kind: type[nn.Module]) -> CapturedModel:
    torch.manual_seed(0)
    model = kind()
    with torch.no_grad():
        for x in batches(20):
            model.train()(x)
    return capture(model.eval(), (batches(1)[0],))


def quantized(kind: type[nn.Module], scheme: QuantScheme, *names: str) -> QuantizedModel:
    return quantize(trained(kind), scheme, batches(32), preparations=names)


def channels(model: CapturedModel | QuantizedModel, node: Node) -> np.ndarray:
    """What flows into a norm or out of a layer, before its activation, `[C, n]`."""
    ref = node.tensors[0] if node.op == "batch_norm" else node.outputs[0]
    change = model.transform if isinstance(model, QuantizedModel) else lambda at, tensor: tensor
    seen: list[np.ndarray] = []

    def look(at: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if at == ref:
            seen.append(tensor.movedim(1, 0).flatten(1).double().numpy())
        return change(at, tensor)

    for x in batches(32):
        model.run(x, transform=look)
    return np.concatenate(seen, 1)


def test_layers_that_took_a_norm_up_have_its_statistics_again(w2: QuantScheme) -> None:
    truth, plain, after = trained(Folded), quantized(Folded, w2), quantized(Folded, w2, "reestimate_norms")
    truth = fit_scheme(truth, w2)
    nearer = []
    for node in (node for node in after.captured.graph.nodes if node.op == "conv2d"):
        wanted, before, now = (channels(model, node) for model in (truth, plain, after))
        deviation = wanted.std(1)
        assert np.abs(now.mean(1) - wanted.mean(1)).max() < 0.1 * deviation.max()
        ratios = [np.abs(np.log(each.std(1) / deviation)).mean() for each in (before, now)]
        nearer.append(ratios[1] / ratios[0])
    # Samples weigh by the inverse of their error, so statistics over all positions agree nearly.
    assert max(nearer) < 0.5


def test_codes_of_weights_stay(w2: QuantScheme) -> None:
    plain, after = quantized(Folded, w2), quantized(Folded, w2, "reestimate_norms")
    for ref in plain.plan.weights:
        name = plain.captured.value_refs[ref]
        before, now = (codes_of(each.captured.values[name], each.qparams[ref]) for each in (plain, after))
        assert torch.equal(before, now)
    assert any(not torch.equal(plain.qparams[ref].scale, after.qparams[ref].scale) for ref in plain.plan.weights)


def test_a_norm_that_stays_is_given_what_the_quantized_network_makes(w2: QuantScheme) -> None:
    plain, after = quantized(Staying, w2), quantized(Staying, w2, "reestimate_norms")
    (norm,) = (node for node in after.captured.graph.nodes if node.op == "batch_norm")
    names = [after.captured.value_refs[ref] for ref in norm.tensors[3:5]]
    float_network = trained(Staying)
    truth, found = channels(float_network, norm), channels(after, norm)

    def normalized(values: np.ndarray, model: CapturedModel) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = (model.values[name].double().numpy() for name in names)
        root = np.sqrt(variance + 1e-5)
        return (values.mean(1) - mean) / root, values.std(1) / root

    wanted, now = normalized(truth, float_network), normalized(found, after.captured)
    before = normalized(channels(plain, norm), plain.captured)
    changed = (after.captured.values[names[1]] != plain.captured.values[names[1]]).numpy()
    assert changed.mean() > 0.4  # the others would not have gained on samples that were not used
    distances = [[np.abs(a - b)[changed].mean() for a, b in zip(each, wanted, strict=True)] for each in (before, now)]
    assert distances[1][0] < 0.5 * distances[0][0] and distances[1][1] < 0.5 * distances[0][1]


@pytest.mark.parametrize("kind", [Folded, Staying])
def test_the_quantized_network_comes_nearer(kind: type[nn.Module], w2: QuantScheme) -> None:
    truth = trained(kind)

    def noise(*names: str) -> float:
        model = quantized(kind, w2, *names)
        return sum(float((model.run(x) - truth.run(x)).square().mean()) for x in batches(48, 32))

    assert noise("reestimate_norms") < 0.9 * noise()


def test_factors_are_those_of_weighted_means_and_deviations() -> None:
    seen = Seen((0.0, 6.0))
    for size in (1.0, 4.0):
        y = torch.randn(3, 50) * size
        seen.add(y, 0.7 * y + 0.2 + 0.1 * torch.randn(3, 50))
    lacking = [y.numpy().clip(0, 6) - z.numpy().clip(0, 6) for y, z in zip(seen.y, seen.z, strict=True)]
    weights = np.repeat([1 / np.square(each).mean() for each in lacking], 50)
    y, z = (np.concatenate(parts, 1) for parts in (seen.y, seen.z))
    means = [np.average(each, axis=1, weights=weights) for each in (y, z)]
    spreads = [
        np.average((each - mean[:, None]) ** 2, axis=1, weights=weights)
        for each, mean in zip((y, z), means, strict=True)
    ]
    r, t = seen.fitted(scales=True)
    np.testing.assert_allclose(r.numpy(), np.sqrt(spreads[0] / spreads[1]), rtol=1e-10)
    np.testing.assert_allclose(t.numpy(), means[0] - r.numpy() * means[1], rtol=1e-8)
