"""Streams of sums, rotated as one where that is exact and named where it is not, and layers that give q, k and v."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.preparations.heads import find_head_pairs
from bitwright.quant.preparations.rotate import left_alone
from bitwright.quant.preparations.streams import find_streams
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

WIDTH = 8


class Bottlenecks(nn.Module):
    """MobileNetV2's: depthwise inside, no activation between blocks; one channel of the stream is loud."""

    def __init__(self, last: str = "conv") -> None:
        super().__init__()
        self.last = last
        self.stem, self.head = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 6, 3, padding=1)
        self.expand = nn.ModuleList(nn.Conv2d(WIDTH, 16, 1) for _ in range(2))
        self.deep = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2))
        self.project = nn.ModuleList(nn.Conv2d(16, WIDTH, 1) for _ in range(2))
        self.pool = nn.AvgPool2d(2)
        for maker in (self.stem, *self.project):
            maker.weight.data[0] *= 30.0
        for reader in (self.head, *self.expand):
            reader.weight.data[:, 0] /= 10.0

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        for expand, deep, project in zip(self.expand, self.deep, self.project, strict=True):
            x = x + project(F.relu6(deep(F.relu6(expand(x)))))
        if self.last == "result":
            return self.head(x), x
        return self.head(F.relu(x) if self.last == "relu" else self.pool(x))


class Fused(nn.Module):
    """Attention as timm writes it, and as others do, with one layer for queries, keys and values."""

    def __init__(self, form: str = "unbind") -> None:
        super().__init__()
        self.form = form
        self.qkv, self.mix = nn.Linear(12, 24), nn.Linear(8, 12)
        with torch.no_grad():
            self.qkv.weight[::4] *= 20.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        if self.form == "unbind":
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = self.qkv(x).chunk(3, -1) if self.form == "chunk" else self.qkv(x).split(8, -1)
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in parts)
        k = torch.tanh(k) if self.form == "tanh" else k
        weights = torch.softmax((q * 0.02) @ k.transpose(-2, -1), -1)
        if self.form == "again":
            return self.mix((weights @ v).transpose(1, 2).flatten(2)) + v.sum()
        return self.mix((weights @ v).transpose(1, 2).flatten(2))


def picture(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def text(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 5, 12, generator=torch.Generator().manual_seed(0))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[..., torch.Tensor]]] = {
    "bottlenecks": (Bottlenecks, picture),
    "unbind": (Fused, text),
    "chunk": (lambda: Fused("chunk"), text),
    "split": (lambda: Fused("split"), text),
}


def captured_for(name: str) -> tuple[CapturedModel, Callable[..., torch.Tensor]]:
    torch.manual_seed(0)
    build, data = NETWORKS[name]
    return capture(build().eval(), (data(),)), data


@pytest.mark.parametrize("of", NETWORKS)
def test_results_stay_in_onnx_runtime_as_well(of: str, u8s8: QuantScheme, tmp_path: Path) -> None:
    network, data = captured_for(of)
    assert left_alone(network) == {}
    rotated = PREPARATIONS.load("rotate").prepare(network, u8s8, [(data(),)])
    assert sum(not torch.equal(value, rotated.values[name]) for name, value in network.values.items()) >= 3
    x = data(2)[1:]
    path = export_float(rotated.graph, tmp_path / "rotated.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, network.run(x).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "of"), [("rotate", "bottlenecks"), ("rotate", "unbind"), ("learn_rotations", "unbind")]
)
def test_codes_lose_less(name: str, of: str, u8s8: QuantScheme) -> None:
    network, data = captured_for(of)
    rotated = PREPARATIONS.load(name).prepare(network, u8s8, [(x,) for x in data(8).split(1)])
    products = replace(u8s8, quantized_operators=frozenset({"conv2d", "linear", "matmul"}), codes_as_read=True)
    noises = []
    for each in (network, rotated):
        quantized = quantize(each, products, data(8).split(1), bias_correction=False)
        noises.append(sum(float((quantized.run(x) - network.run(x)).square().mean()) for x in data(20)[8:].split(1)))
    assert noises[1] < 0.7 * noises[0]


def test_a_stream_is_all_that_is_added_and_whoever_reads_it() -> None:
    network = capture(Bottlenecks().eval(), (picture(),))
    names = {name: str(ref) for ref, name in network.value_refs.items()}
    (stream,) = (each for each in find_streams(network) if not each.why_not)
    assert stream.sums == 2
    assert sorted(names[own[0]] for own in stream.makers) == ["project.0.weight", "project.1.weight", "stem.weight"]
    assert sorted(names[name] for name in stream.readers) == ["expand.0.weight", "expand.1.weight", "head.weight"]


@pytest.mark.parametrize(
    ("build", "data", "why"),
    [
        (lambda: Bottlenecks("relu"), picture, {"relu reads it": ["the sum behind conv2d"]}),
        (lambda: Bottlenecks("result"), picture, {"it is a result of the network": ["the sum behind conv2d"]}),
        (lambda: Fused("tanh"), text, {"tanh stands between layer and product": ["queries and keys of matmul"]}),
        (lambda: Fused("again"), text, {"others read them as well": ["values of matmul_1"]}),
    ],
)
def test_what_is_left_alone_is_named(
    build: Callable[[], nn.Module], data: Callable[..., torch.Tensor], why: dict[str, list[str]], u8s8: QuantScheme
) -> None:
    network = capture(build().eval(), (data(),))
    assert left_alone(network) == why
    rotated = PREPARATIONS.load("rotate").prepare(network, u8s8, [(data(),)])
    torch.testing.assert_close(rotated.run(data()), network.run(data()), rtol=1e-4, atol=1e-4)


def test_one_layer_gives_all_three() -> None:
    scores, values = find_head_pairs(capture(Fused().eval(), (text(),)))
    assert scores.first == scores.second == values.first
    assert scores.blocks == (((0, 1, 2, 3), (8, 9, 10, 11)), ((4, 5, 6, 7), (12, 13, 14, 15)))
    assert values.blocks == (((16, 17, 18, 19), (0, 1, 2, 3)), ((20, 21, 22, 23), (4, 5, 6, 7)))
