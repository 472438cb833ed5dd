"""Statistics behind quantized layers are those in float again, as NumPy measures them; codes stay."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.graph import Node
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
    return [torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in range(first, count)]


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


def channels(model: QuantizedModel, node: Node, data: list[torch.Tensor], *, codes: bool) -> np.ndarray:
    """What flows into or out of a node, `[C, n]`; of a layer its sums before the activation."""
    ref = node.tensors[0] if node.op == "batch_norm" else node.outputs[0]
    seen: list[np.ndarray] = []

    def look(at: object, tensor: torch.Tensor) -> torch.Tensor:
        if at == ref:
            seen.append(tensor.movedim(1, 0).flatten(1).double().numpy())
        return model.transform(at, tensor) if codes else tensor  # type: ignore[arg-type]

    for x in data:
        (model if codes else model.captured).run(x, transform=look)
    return np.concatenate(seen, 1)


def test_layers_that_took_a_norm_up_have_its_statistics_again(w2: QuantScheme) -> None:
    plain, after = quantized(Folded, w2), quantized(Folded, w2, "reestimate_norms")
    layers = [node for node in after.captured.graph.nodes if node.op == "conv2d"]
    for node in layers:
        truth = channels(plain, node, batches(32), codes=False)
        found = channels(after, node, batches(32), codes=True)
        np.testing.assert_allclose(found.mean(1), truth.mean(1), atol=0.02 * truth.std())
        np.testing.assert_allclose(found.std(1), truth.std(1), rtol=0.02)
    worst = channels(plain, layers[-1], batches(32), codes=True).std(1) / truth.std(1)
    assert np.abs(worst - 1).max() > 0.1  # which it did not have before


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
    truth = channels(plain, norm, batches(32), codes=False)
    found = channels(after, norm, batches(32), codes=True)

    def normalized(values: np.ndarray, model: QuantizedModel) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = (model.captured.values[name].double().numpy() for name in names)
        root = np.sqrt(variance + 1e-5)
        return (values.mean(1) - mean) / root, values.std(1) / root

    wanted = normalized(truth, plain)
    changed = (after.captured.values[names[1]] != plain.captured.values[names[1]]).numpy()
    assert changed.mean() > 0.5  # the others would not have gained on samples that were not used
    for ours, theirs in zip(normalized(found, after), wanted, strict=True):
        np.testing.assert_allclose(ours[changed], theirs[changed], atol=2e-3)
    before = normalized(channels(plain, norm, batches(32), codes=True), plain)
    assert max(np.abs(a - b).max() for a, b in zip(before, wanted, strict=True)) > 0.05


@pytest.mark.parametrize("kind", [Folded, Staying])
def test_the_quantized_network_comes_nearer(kind: type[nn.Module], w2: QuantScheme) -> None:
    truth = trained(kind)

    def noise(*names: str) -> float:
        model = quantized(kind, w2, *names)
        return sum(float((model.run(x) - truth.run(x)).square().mean()) for x in batches(48, 32))

    assert noise("reestimate_norms") < 0.9 * noise()
