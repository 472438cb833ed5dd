"""Preparations leave a network's results as they are and make the quantized ones better."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.formats import FORMATS
from bitwright.quant.plan import plan
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.preparations.search import balanced, best_scale
from bitwright.quant.preparations.sites import find_sites, scale_channels
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme

METHODS = ("awq", "learn_rotations", "rotate", "smoothquant")
WIDTH, INNER = 16, 32
W8A8 = QuantScheme(
    name="w8a8",
    activations=QParamsSpec(format=FORMATS["uint8"], symmetric=False),
    weights=QParamsSpec(format=FORMATS["int8"], symmetric=True, granularity=Granularity.PER_CHANNEL),
    quantized_operators=frozenset({"linear"}),
    codes_as_read=True,
)
W4A16 = QuantScheme(
    name="w4a16",
    activations=QParamsSpec(format=FORMATS["float16"], symmetric=True),
    weights=QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_BLOCK, block_size=8),
    bias=BiasKind.FLOAT32,
    quantized_operators=frozenset({"linear"}),
)
PRODUCTS = replace(W8A8, quantized_operators=frozenset({"linear", "matmul"}))
SCHEMES = {"smoothquant": W8A8, "awq": W4A16, "rotate": PRODUCTS, "learn_rotations": PRODUCTS}


class Blocks(nn.Module):
    """A block whose norm only its layers read, and one whose norm a residual reads as well; loud channels in both."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        for norm in (self.before, self.after):
            norm.weight.data[::5] *= 40.0
            norm.bias.data.normal_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        x = self.after(x + torch.tanh(self.query(y)) * self.key(y))
        return x + self.down(F.gelu(self.up(x)))


class Attention(nn.Module):
    """Two heads of four channels and a norm; one channel of each head is loud in queries and keys, one in values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, 8) for _ in range(3))
        self.mix = nn.Linear(8, WIDTH)
        for layer, loud in ((self.query, 8.0), (self.key, 8.0), (self.value, 40.0)):
            layer.weight.data[::4] *= loud

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / 16.0, -1)
        return x + self.mix((weights @ value).transpose(1, 2).flatten(2))


def samples(count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 10, WIDTH, generator=generator) for _ in range(count)]


@pytest.fixture
def captured() -> CapturedModel:
    return captured_for("smoothquant")


def captured_for(name: str) -> CapturedModel:
    torch.manual_seed(0)
    network = Attention() if "rotat" in name else Blocks()
    return capture(network.eval(), (torch.zeros(1, 10, WIDTH),))


def prepared(captured: CapturedModel, name: str) -> CapturedModel:
    found: CapturedModel = PREPARATIONS.load(name).prepare(captured, SCHEMES[name], [(x,) for x in samples()])
    return found


def noise(captured: CapturedModel, scheme: QuantScheme, *names: str) -> float:
    quantized = quantize(captured, scheme, samples(), preparations=names, bias_correction=False)
    return sum(float((quantized.run(x) - captured.run(x)).square().mean()) for x in samples(20)[12:])


def test_every_preparation_has_its_tests() -> None:
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert set(PREPARATIONS.names()) <= {*METHODS, *files}
    assert set(METHODS) == set(SCHEMES)


@pytest.mark.parametrize("name", METHODS)
def test_results_stay_as_they_are(name: str) -> None:
    captured = captured_for(name)
    after = prepared(captured, name)
    assert any(not torch.equal(value, after.values[key]) for key, value in captured.values.items())
    for x in samples():
        torch.testing.assert_close(after.run(x), captured.run(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_the_quantized_network_comes_nearer(name: str) -> None:
    captured = captured_for(name)
    assert noise(captured, SCHEMES[name], name) < 0.7 * noise(captured, SCHEMES[name])


@pytest.mark.parametrize("name", METHODS)
def test_the_prepared_network_runs_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    captured = captured_for(name)
    file = export_float(prepared(captured, name).graph, tmp_path / "prepared.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (x,) = samples(1)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, captured.run(x).numpy(), rtol=1e-4, atol=1e-4)


def test_a_norm_takes_factors_up_where_only_layers_read_it(captured: CapturedModel) -> None:
    sites = find_sites(captured.graph, plan(captured.graph, W8A8))
    assert [[node.module_path for node in site.readers] for site in sites] == [["query", "key"], ["up"], ["down"]]
    scale = torch.linspace(0.5, 2.0, WIDTH)
    after = scale_channels(captured, {sites[0]: scale})
    assert len(after.graph.nodes) == len(captured.graph.nodes)
    names = {str(ref): name for ref, name in captured.value_refs.items()}
    norm = names["before.weight"]
    torch.testing.assert_close(after.values[norm], captured.values[norm] / scale)
    assert len(scale_channels(captured, {sites[1]: scale}).graph.nodes) == len(captured.graph.nodes) + 1


@settings(max_examples=15, deadline=None)
@given(exponents=st.lists(st.floats(-6, 6), min_size=WIDTH, max_size=WIDTH), which=st.integers(0, 1))
def test_any_positive_factors_leave_the_results(exponents: list[float], which: int) -> None:
    torch.manual_seed(0)
    captured = capture(Blocks().eval(), (torch.zeros(1, 10, WIDTH),))
    site = find_sites(captured.graph, plan(captured.graph, W8A8))[which]
    after = scale_channels(captured, {site: torch.tensor(exponents).exp2()})
    (x,) = samples(1)
    torch.testing.assert_close(after.run(x), captured.run(x), rtol=1e-4, atol=1e-3)


def test_a_weight_that_layers_share_is_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.relu(self.layer(x)))

    graph = capture(Shared().eval(), (torch.zeros(2, WIDTH),)).graph
    assert find_sites(graph, plan(graph, W8A8)) == []


def test_scales_are_those_of_the_papers_equation() -> None:
    activations, weights = torch.tensor([8.0, 2.0, 0.5]), torch.tensor([0.5, 4.0, 1.0])
    wanted = activations.numpy() ** 0.3 / weights.numpy() ** 0.7
    found = balanced(activations, weights, 0.3).numpy()
    np.testing.assert_allclose(found / found[0], wanted / wanted[0], rtol=1e-5)


def _distance_to(wanted: torch.Tensor) -> Callable[[torch.Tensor], float]:
    return lambda scale: float((scale - wanted).abs().sum())


def test_the_exponent_with_the_least_error_is_taken_or_none() -> None:
    a, b = torch.tensor([8.0, 2.0, 0.5]), torch.tensor([0.5, 4.0, 1.0])
    torch.testing.assert_close(best_scale(a, b, _distance_to(balanced(a, b, 0.65))), balanced(a, b, 0.65))
    assert best_scale(a, b, _distance_to(torch.ones(3))) is None


def test_activations_that_follow_the_data_are_left_alone(captured: CapturedModel) -> None:
    dynamic = replace(W8A8, activations=replace(W8A8.activations, dynamic=True))
    after = PREPARATIONS.load("smoothquant").prepare(captured, dynamic, [(x,) for x in samples()])
    assert all(torch.equal(value, after.values[key]) for key, value in captured.values.items())


def test_an_unknown_preparation_names_those_there_are(captured: CapturedModel) -> None:
    with pytest.raises(InputError, match=r"unknown preparation 'smooth'.*awq.*smoothquant"):
        quantize(captured, W8A8, samples(), preparations=["smooth"])


def test_results_that_nobody_reads_as_codes_stay_real(captured: CapturedModel) -> None:
    graph = captured.graph
    read = {node.tensors[0] for node in graph.nodes if node.op == "linear"}
    assert set(plan(graph, W8A8).activations) == read
    eager = replace(W8A8, codes_as_read=False)
    assert set(plan(graph, eager).activations) > read
