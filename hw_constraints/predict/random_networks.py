"""Networks drawn at random, to be measured whole: what kernels cost behind each other, beside what each costs alone.

Blocks in the manner of published ones (residual, inverted residual with and without squeeze-and-excite, dense, split
and joined, fire, pyramid, encoder) at random widths, resolutions and activations. They are part of a latency table:
overheads, and how far sums of kernels are off, are read from them and never from a network that is to be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from bitwright.hw_constraints.predict.planned_model import float_model, planned_model
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme

_SIZES = (16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224)
_LARGEST_MACS = 6e8
_FEWEST_MACS = 2e5
_WEIGHT_STD, _LARGEST_CODE = 0.05, 127


@dataclass(frozen=True, kw_only=True)
class RandomNetwork:
    """One network.

    Attributes:
        name: says how to draw it again.
        graph: in float, without values.
    """

    name: str
    graph: Graph

    def float_file(self) -> bytes:
        """ONNX in float with random weights."""
        return _with_values(float_model(self.graph))

    def int8_file(self, scheme: QuantScheme) -> bytes:
        """ONNX with Q/DQ as the scheme plans it, with random codes."""
        return _with_values(planned_model(self.graph, plan(self.graph, scheme)))


def draw_networks(count: int, *, seed: int = 0) -> list[RandomNetwork]:
    """Networks between 0.2 and 600 million multiply-accumulates."""
    drawn: list[RandomNetwork] = []
    number = 0
    while len(drawn) < count:
        network = draw_network(seed, number)
        if _FEWEST_MACS <= sum(map(network.graph.macs, network.graph.nodes)) <= _LARGEST_MACS:
            drawn.append(network)
        number += 1
    return drawn


def draw_network(seed: int, number: int) -> RandomNetwork:
    """The network called `random-SEED-NUMBER`."""
    generator = np.random.default_rng((seed, number))
    graph = _encoder(generator) if generator.random() < _ENCODERS else _Picture(generator).draw()
    return RandomNetwork(name=f"random-{seed}-{number}", graph=graph)


_ENCODERS = 0.1  # of all


class _Picture:
    """A stem, blocks of one or two kinds, a head."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.random = generator
        self.b = GraphBuilder()
        self.activation = str(generator.choice(["relu", "relu", "relu", "hardtanh", "silu", "hardswish", "leaky_relu"]))
        self.kernel = int(generator.choice([3, 3, 3, 5]))
        self.multiple = int(generator.choice([4, 8, 8, 16, 16]))

    def draw(self) -> Graph:
        size = int(self.random.choice(_SIZES))
        width = self.width(8, 64)
        x = self.conv(self.b.input(1, 3, size, size), width, 3, stride=int(self.random.choice([1, 2, 2])))
        kinds: list[Callable[[TensorRef, int], TensorRef]] = [
            *(self.plain, self.residual, self.bottleneck, self.inverted, self.gated, self.separable),
            *(self.dense, self.split_and_join, self.fire, self.grouped),
        ]
        chosen = [kinds[i] for i in self.random.choice(len(kinds), int(self.random.integers(1, 4)), replace=False)]
        skips = []
        for _ in range(int(self.random.integers(1, 5))):
            for _ in range(int(self.random.integers(1, 4))):
                x = chosen[int(self.random.integers(len(chosen)))](x, width)
            if min(self.shape(x)[2:]) >= 8:
                skips.append(x)
                width = min(640, self.rounded(width * float(self.random.choice([1.0, 1.5, 2.0]))))
                x = self.down(x, width)
        if skips and self.random.random() < 0.25:
            return self.b.graph(*self.pyramid(x, skips[-2:]))
        return self.b.graph(self.classify(x))

    # Parts.

    def shape(self, x: TensorRef) -> tuple[int, ...]:
        return tuple(dim or 1 for dim in self.b.tensors[x].shape)

    def width(self, low: int, high: int) -> int:
        return self.rounded(math.exp(self.random.uniform(math.log(low), math.log(high))))

    def rounded(self, width: float) -> int:
        return max(self.multiple, round(width / self.multiple) * self.multiple)

    def conv(
        self, x: TensorRef, out: int, kernel: int, *, stride: int = 1, groups: int = 1, act: bool = True
    ) -> TensorRef:
        y = self.b.conv2d(x, out, kernel, stride=stride, groups=groups)
        bias = self.b.parameter(out)
        node = self.b.nodes[-1]
        self.b.nodes[-1] = type(node)(**{**vars(node), "inputs": (*node.inputs[:2], bias)})
        return self.act(y) if act else y

    def act(self, x: TensorRef) -> TensorRef:
        shape = self.shape(x)
        if self.activation == "hardtanh":
            return self.b.call("hardtanh", x, shape=shape, min_val=0.0, max_val=6.0)
        if self.activation == "leaky_relu":
            return self.b.call("leaky_relu", x, shape=shape, negative_slope=0.1)
        return self.b.call(self.activation, x, shape=shape)

    def add(self, x: TensorRef, y: TensorRef) -> TensorRef:
        return self.b.call("add", x, y, shape=self.shape(x))

    def cat(self, *parts: TensorRef) -> TensorRef:
        n, _, height, width = self.shape(parts[0])
        channels = sum(self.shape(part)[1] for part in parts)
        return self.b.call("cat", *parts, shape=(n, channels, height, width), dim=1)

    # Blocks: [N, C, H, W] to [N, C', H, W].

    def plain(self, x: TensorRef, width: int) -> TensorRef:
        return self.conv(x, width, self.kernel)

    def residual(self, x: TensorRef, width: int) -> TensorRef:
        skip = x if self.shape(x)[1] == width else self.conv(x, width, 1, act=False)
        y = self.conv(self.conv(x, width, 3), width, 3, act=False)
        return self.act(self.add(y, skip))

    def bottleneck(self, x: TensorRef, width: int) -> TensorRef:
        skip = x if self.shape(x)[1] == width else self.conv(x, width, 1, act=False)
        inner = self.rounded(width / 2)
        y = self.conv(self.conv(self.conv(x, inner, 1), inner, 3), width, 1, act=False)
        return self.act(self.add(y, skip))

    def inverted(self, x: TensorRef, width: int, *, gate: bool = False) -> TensorRef:
        inner = self.shape(x)[1] * int(self.random.choice([2, 3, 4, 6]))
        y = self.conv(self.conv(x, inner, 1), inner, self.kernel, groups=inner)
        y = self.conv(self.squeeze_excite(y) if gate else y, width, 1, act=False)
        return self.add(x, y) if self.shape(x)[1] == width else y

    def gated(self, x: TensorRef, width: int) -> TensorRef:
        return self.inverted(x, width, gate=True)

    def squeeze_excite(self, x: TensorRef) -> TensorRef:
        n, channels, height, width = self.shape(x)
        pooled = self.b.call("adaptive_avg_pool2d", x, shape=(n, channels, 1, 1), output_size=(1, 1))
        squeezed = self.conv(pooled, max(4, channels // 4), 1)
        gate = self.b.call("sigmoid", self.conv(squeezed, channels, 1, act=False), shape=(n, channels, 1, 1))
        return self.b.call("mul", x, gate, shape=(n, channels, height, width))

    def separable(self, x: TensorRef, width: int) -> TensorRef:
        channels = self.shape(x)[1]
        return self.conv(self.conv(x, channels, self.kernel, groups=channels), width, 1)

    def grouped(self, x: TensorRef, width: int) -> TensorRef:
        inner = max(16, round(width / 16) * 16)
        y = self.conv(self.conv(x, inner, 1), inner, 3, groups=inner // 16)
        return self.conv(y, width, 1)

    def dense(self, x: TensorRef, width: int) -> TensorRef:
        for _ in range(int(self.random.integers(2, 5))):
            x = self.cat(x, self.conv(x, self.rounded(width / 4), 3))
        return x

    def split_and_join(self, x: TensorRef, width: int) -> TensorRef:
        half = self.rounded(width / 2)
        left, right = self.conv(x, half, 1), self.conv(x, half, 1)
        for _ in range(int(self.random.integers(1, 3))):
            left = self.add(left, self.conv(self.conv(left, half, 1), half, 3))
        return self.conv(self.cat(left, right), width, 1)

    def fire(self, x: TensorRef, width: int) -> TensorRef:
        squeezed, half = self.conv(x, self.rounded(width / 4), 1), self.rounded(width / 2)
        return self.cat(self.conv(squeezed, half, 1), self.conv(squeezed, half, 3))

    def down(self, x: TensorRef, width: int) -> TensorRef:
        if self.random.random() < 0.5:
            return self.conv(x, width, 3, stride=2)
        n, channels, height, size = self.shape(x)
        halved = (n, channels, height // 2, size // 2)
        arguments: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
        if self.random.random() < 0.5:
            return self.b.call("max_pool2d", x, shape=halved, dilation=(1, 1), **arguments)
        arguments |= {"count_include_pad": True, "divisor_override": None}
        return self.b.call("avg_pool2d", x, shape=halved, **arguments)

    # Heads.

    def pyramid(self, x: TensorRef, skips: list[TensorRef]) -> tuple[TensorRef, ...]:
        heads = [self.conv(x, 24, 1, act=False)]
        for skip in reversed(skips):
            n, _, height, width = self.shape(skip)
            x = self.conv(x, self.rounded(32), 1)
            up = (n, self.shape(x)[1], height, width)
            if tuple(2 * side for side in self.shape(x)[2:]) != (height, width):
                break
            x = self.b.call("upsample_nearest2d", x, shape=up, output_size=(height, width), scale_factors=(2.0, 2.0))
            x = self.conv(self.cat(x, skip), self.rounded(48), 3)
            heads.append(self.conv(x, 24, 1, act=False))
        return tuple(heads)

    def classify(self, x: TensorRef) -> TensorRef:
        n, channels, _, _ = self.shape(x)
        pooled = self.b.call("adaptive_avg_pool2d", x, shape=(n, channels, 1, 1), output_size=(1, 1))
        flat = self.b.call("flatten", pooled, shape=(n, channels), start_dim=1, end_dim=-1)
        return linear(self.b, flat, int(self.random.choice([10, 100, 1000])))


def linear(b: GraphBuilder, x: TensorRef, out: int) -> TensorRef:
    """A linear layer with bias: [..., C] to [..., out]."""
    shape = b.tensors[x].shape
    return b.call("linear", x, b.parameter(out, shape[-1]), b.parameter(out), shape=(*shape[:-1], out))


def _encoder(generator: np.random.Generator) -> Graph:
    """Attention and perceptrons over tokens."""
    b = GraphBuilder()
    tokens, heads = int(generator.choice([16, 32, 49, 64, 100, 197])), int(generator.choice([2, 3, 4, 6]))
    channels = heads * int(generator.choice([16, 32, 64]))
    activation = str(generator.choice(["gelu", "relu"]))
    x = linear(b, b.input(1, tokens, 64), channels)
    for _ in range(int(generator.integers(1, 5))):
        x = b.call("add", x, _attention(b, _norm(b, x), heads), shape=(1, tokens, channels))
        hidden = linear(b, _norm(b, x), 4 * channels)
        arguments: dict[str, Any] = {"approximate": "none"} if activation == "gelu" else {}
        hidden = b.call(activation, hidden, shape=(1, tokens, 4 * channels), **arguments)
        x = b.call("add", x, linear(b, hidden, channels), shape=(1, tokens, channels))
    return b.graph(linear(b, _norm(b, x), 24))


def _norm(b: GraphBuilder, x: TensorRef) -> TensorRef:
    channels = b.tensors[x].shape[-1]
    shape = b.tensors[x].shape
    arguments: dict[str, Any] = {"normalized_shape": (channels,), "eps": 1e-5}
    return b.call("layer_norm", x, b.parameter(channels), b.parameter(channels), shape=shape, **arguments)


def _attention(b: GraphBuilder, x: TensorRef, heads: int) -> TensorRef:
    _, tokens, channels = (dim or 1 for dim in b.tensors[x].shape)
    depth = channels // heads

    def in_heads() -> TensorRef:
        parted = b.call("view", linear(b, x, channels), shape=(1, tokens, heads, depth), size=(1, tokens, heads, depth))
        return b.call("permute", parted, shape=(1, heads, tokens, depth), dims=(0, 2, 1, 3))

    query, key, value = in_heads(), in_heads(), in_heads()
    turned = b.call("permute", key, shape=(1, heads, depth, tokens), dims=(0, 1, 3, 2))
    scores = b.call("matmul", query, turned, shape=(1, heads, tokens, tokens))
    shares = b.call("softmax", scores, shape=(1, heads, tokens, tokens), dim=-1)
    mixed = b.call("matmul", shares, value, shape=(1, heads, tokens, depth))
    joined = b.call("permute", mixed, shape=(1, tokens, heads, depth), dims=(0, 2, 1, 3))
    flat = b.call("view", joined, shape=(1, tokens, channels), size=(1, tokens, channels))
    return linear(b, flat, channels)


def _with_values(model: onnx.ModelProto) -> bytes:
    """The same model with random numbers where only a shape stood."""
    generator = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if not tensor.raw_data and tensor.data_type in _DRAW:
            tensor.raw_data = _DRAW[tensor.data_type](generator, tuple(tensor.dims)).tobytes()
    return bytes(model.SerializeToString())


_DRAW: dict[int, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    TensorProto.FLOAT: lambda g, shape: (_WEIGHT_STD * g.standard_normal(shape)).astype(np.float32),
    TensorProto.INT8: lambda g, shape: g.integers(-_LARGEST_CODE, _LARGEST_CODE + 1, shape, dtype=np.int8),
    TensorProto.INT32: lambda g, shape: g.integers(-1000, 1000, shape, dtype=np.int32),
}
