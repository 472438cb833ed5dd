"""Networks whose weights do not stay in any cache, drawn at random: what it costs that weights come from memory.

A kernel alone finds its weights in the last-level cache, which a network with more weights than that does not.
"""

from __future__ import annotations

import math

import numpy as np

from bitwright.hw_constraints.predict.random_networks import RandomNetwork, linear
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph, TensorRef

_WEIGHT_BYTES = (6e6, 160e6)  # in float: from what still fits the last level of caches to many times that
_CONVOLUTIONAL = 0.7  # of all


def draw_heavy_networks(count: int, *, seed: int = 0) -> list[RandomNetwork]:
    """Few positions, many channels: the later stages of classifiers, and perceptrons."""
    return [draw_heavy_network(seed, number) for number in range(count)]


def draw_heavy_network(seed: int, number: int) -> RandomNetwork:
    """The network called `heavy-SEED-NUMBER`."""
    generator = np.random.default_rng((seed, number, 1))
    graph = _convolutions(generator) if generator.random() < _CONVOLUTIONAL else _perceptron(generator)
    return RandomNetwork(name=f"heavy-{seed}-{number}", graph=graph)


def _budget(generator: np.random.Generator) -> float:
    low, high = _WEIGHT_BYTES
    return math.exp(generator.uniform(math.log(low), math.log(high))) / 4


def _convolutions(generator: np.random.Generator) -> Graph:
    """Bottlenecks and pairs of 3×3 convolutions over 3×3 to 14×14 positions."""
    b, left = GraphBuilder(), _budget(generator)
    side, width = int(generator.choice([3, 4, 5, 7, 10, 14])), int(generator.choice([128, 256, 384, 512]))
    x = _conv(b, b.input(1, 3, side, side), width, 3)
    while left > 0:
        skip, inner = x, width if generator.random() < 0.5 else width // 2
        if inner == width:
            x, used = _conv(b, _conv(b, x, width, 3), width, 3), 18 * width * width
        else:
            x = _conv(b, _conv(b, _conv(b, x, inner, 1), inner, 3), width, 1)
            used = 2 * width * inner + 9 * inner * inner
        x = b.call("add", x, skip, shape=b.tensors[x].shape)
        left -= used
    pooled = b.call("adaptive_avg_pool2d", x, shape=(1, width, 1, 1), output_size=(1, 1))
    return b.graph(linear(b, b.call("flatten", pooled, shape=(1, width), start_dim=1, end_dim=-1), 1000))


def _conv(b: GraphBuilder, x: TensorRef, out: int, kernel: int) -> TensorRef:
    y = b.conv2d(x, out, kernel)
    return b.call("relu", y, shape=b.tensors[y].shape)


def _perceptron(generator: np.random.Generator) -> Graph:
    b, left = GraphBuilder(), _budget(generator)
    width = int(generator.choice([512, 1024, 2048, 4096]))
    x = b.input(1, width)
    while left > 0:
        out = int(generator.choice([512, 1024, 2048, 4096]))
        left -= out * (b.tensors[x].shape[-1] or 1)
        x = b.call("relu", linear(b, x, out), shape=(1, out))
    return b.graph(linear(b, x, 10))
