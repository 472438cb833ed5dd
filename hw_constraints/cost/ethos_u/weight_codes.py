"""The int8 codes of a layer's weights: symmetric, per output channel, from the largest magnitude."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import Graph, Node

REMEMBERED = 4096  # layers; more than any network here has, a few megabytes
_known: dict[tuple[object, ...], tuple[WeightHistogram, ...]] = {}


@dataclass(frozen=True)
class WeightHistogram:
    """What the size of encoded weights hangs on.

    Attributes:
        shape: [out, kh, kw, in]; depthwise [channels, kh, kw, 1].
        counts: how often each code of -256 … 255 occurs, int64 as bytes, so that it can be hashed.
    """

    shape: tuple[int, int, int, int]
    counts: bytes

    @property
    def frequencies(self) -> npt.NDArray[np.int64]:
        """A copy of the counts, [512]."""
        return np.frombuffer(self.counts, dtype=np.int64).copy()


def weight_codes(graph: Graph, node: Node) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Codes in the weight's own shape, and a scale for each output channel.

    A batch norm behind the layer scales whole channels, so folding it leaves the codes as they are but for a sign.
    """
    return _codes(_values(graph, node))


def weight_histograms(graph: Graph, node: Node, groups: int = 1) -> tuple[WeightHistogram, ...]:
    """Of each group of output channels; remembered by the weights' contents, so that only changed layers cost time.

    Args:
        graph: the network.
        node: a convolution [out, in, kh, kw] or a linear layer [out, in].
        groups: into how many equal parts the output channels are taken.
    """
    values = np.ascontiguousarray(_values(graph, node))
    key = (values.shape, values.dtype.str, groups, hashlib.sha256(values.data).digest())
    if key not in _known:
        if len(_known) >= REMEMBERED:
            _known.clear()
        codes, _ = _codes(values)
        codes = codes.reshape(*codes.shape, *[1] * (4 - codes.ndim)).transpose(0, 2, 3, 1)
        _known[key] = tuple(histogram(part) for part in np.split(codes, groups))
    return _known[key]


def forget() -> None:
    """Forgets every histogram."""
    _known.clear()


def histogram(codes: npt.NDArray[np.int8]) -> WeightHistogram:
    """Of codes [out, kh, kw, in]."""
    counts = np.bincount(codes.astype(np.int16).ravel() + 256, minlength=512).astype(np.int64)
    out, rows, columns, depth = codes.shape
    return WeightHistogram((out, rows, columns, depth), counts.tobytes())


def _values(graph: Graph, node: Node) -> npt.NDArray[Any]:
    _, position, _ = graph.layer_positions(node)
    return graph.array(node.tensors[position])


def _codes(weights: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    values = np.asarray(weights, dtype=np.float64)
    largest = np.abs(values.reshape(values.shape[0], -1)).max(axis=1)
    scales = np.where(largest > 0, largest, 1.0) / 127
    codes = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    return np.clip(codes, -127, 127).astype(np.int8), scales
