"""The int8 codes of a layer's weights: symmetric, per output channel, from the largest magnitude."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import Graph, Node


def weight_codes(graph: Graph, node: Node) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Codes in the weight's own shape, and a scale for each output channel.

    A batch norm behind the layer scales whole channels, so folding it leaves the codes as they are but for a sign.
    """
    _, position, _ = graph.layer_positions(node)
    values = np.asarray(graph.array(node.tensors[position]), dtype=np.float64)
    largest = np.abs(values.reshape(values.shape[0], -1)).max(axis=1)
    scales = np.where(largest > 0, largest, 1.0) / 127
    codes = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    return np.clip(codes, -127, 127).astype(np.int8), scales
