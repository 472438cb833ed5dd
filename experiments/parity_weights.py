"""Whether two sides hold the same weights: where most differ, the networks do, and no layer is to blame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.experiments.parity_sides import Side
from bitwright.quant.parity.link import Array
from bitwright.quant.parity.onnx_network import OnnxNetwork
from bitwright.quant.parity.results import EXACT
from bitwright.quant.parity.torch_links import CapturedLink, SimulationLink

_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """A weight as one side has it.

    Attributes:
        values: real.
        step: of its codes, in a shape that spreads over the values; 0 for real ones.
    """

    values: Array
    step: Array


@dataclass(frozen=True, kw_only=True)
class UnlikeWeights:
    """Weights that both sides have under one name and shape, and that differ.

    Attributes:
        names: which.
        compared: how many both have.
    """

    names: tuple[str, ...]
    compared: int

    @property
    def is_another_network(self) -> bool:
        """Whether most of them do: another training, not a fault of a layer."""
        return 2 * len(self.names) > self.compared

    def __str__(self) -> str:
        shown = ", ".join(self.names[:_SHOWN]) + (", …" if len(self.names) > _SHOWN else "")
        return f"{len(self.names)} of {self.compared} weights differ: {shown}"


def unlike_weights(first: Side, second: Side) -> UnlikeWeights:
    """Compares the weights of layers, matrices and larger.

    Real ones are alike up to `EXACT` of the largest; where one side has codes, up to one step, since a weight may be
    rounded up or down, and what the codes cut off does not count.
    """
    here, there = weights_of(first), weights_of(second)
    shared = [name for name, each in here.items() if name in there and there[name].values.shape == each.values.shape]
    unlike = tuple(name for name in shared if not _alike(here[name], there[name]))
    return UnlikeWeights(names=unlike, compared=len(shared))


def weights_of(side: Side) -> Mapping[str, Weight]:
    """Of the form nearest to the device that shows its weights; none for callables and dumps."""
    for step in reversed(side.steps):
        if step.file is not None:
            return _of_file(step.file)
        if isinstance(step.link, CapturedLink) and not isinstance(step.link, SimulationLink):
            values = step.link.captured.values
            real = {str(ref): values[name].numpy() for ref, name in step.link.captured.value_refs.items()}
            return {name: Weight(values=each, step=np.zeros(())) for name, each in real.items() if _is_weight(each)}
    return {}


def _of_file(path: Path) -> dict[str, Weight]:
    network = OnnxNetwork(path)
    stored = {each.name: each for each in network.model.graph.initializer}
    found = {
        name: Weight(values=array, step=np.zeros(()))
        for name, each in stored.items()
        if each.data_type == onnx.TensorProto.FLOAT and _is_weight(array := numpy_helper.to_array(each))
    }
    for node in network.model.graph.node:
        codes = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        scale = stored.get(node.input[1]) if codes is not None else None
        if codes is not None and scale is not None and _is_weight(array := numpy_helper.to_array(codes)):
            zero = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(())
            axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
            step, offset = (_spread(each, axis, array.ndim) for each in (numpy_helper.to_array(scale), zero))
            if step.ndim in (0, array.ndim):
                real = (array.astype(np.float64) - offset) * step
                found[codes.name.removesuffix("/codes")] = Weight(values=real, step=step)
    return found


def _spread(each: Array, axis: int, rank: int) -> Array:
    """One number a channel along its axis."""
    if each.size == 1:
        return each.reshape(()).astype(np.float64)
    if each.ndim > 1:
        return each  # of blocks
    return each.astype(np.float64).reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def _is_weight(array: Array) -> bool:
    """Biases are corrected and statistics of norms folded; a matrix is what was trained."""
    return array.ndim >= 2 and array.size > 1


def _alike(first: Weight, second: Weight) -> bool:
    a, b = first.values.astype(np.float64), second.values.astype(np.float64)
    step = np.maximum(first.step, second.step)
    if not step.any():
        return bool(np.abs(a - b).max() <= EXACT * np.abs(a).max())
    coded, real = (b, a) if second.step.any() else (a, b)
    low, high = coded.min(), coded.max()  # codes that reach their ends cut off what lies beyond
    return bool((np.abs(coded - np.clip(real, low, high)) <= step * (1 + EXACT)).all())
