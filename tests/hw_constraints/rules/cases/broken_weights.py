from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, TensorRef

Values = npt.NDArray[np.float32]


def layers(*values: float, op: str = "conv2d") -> Graph:
    """Layers in a row; one element of each weight is the given one."""
    b = GraphBuilder()
    x, held = b.input(1, 4, 6, 6), dict[TensorRef, Values]()
    for value in values:
        weight = b.parameter(4, 4, 3, 3) if op == "conv2d" else b.parameter(4)
        held[weight] = np.full([size or 0 for size in b.tensors[weight].shape], 0.5, np.float32)
        held[weight].flat[1] = value
        x = b.call(op, x, weight, None, shape=(1, 4, 6, 6))
    return replace(b.graph(x), load=lambda ref: held[ref])


def masked() -> Graph:
    """A mask is infinite on purpose."""
    b = GraphBuilder()
    x, mask = b.input(1, 4), b.parameter(1, 4)
    values = np.array([[0, 0, -np.inf, -np.inf]], np.float32)
    return replace(b.graph(b.call("add", x, mask, shape=(1, 4))), load=lambda ref: values)


def unreadable() -> Graph:
    """What an ONNX file computes from its own constants, where they do not fit."""

    def load(ref: TensorRef) -> Values:
        raise InputError("node 'r' (Reshape) cannot be computed: cannot reshape array of size 1 into shape (4,4,3,3)")

    return replace(layers(1.0), load=load)


BAD = [
    RuleCase(name="unreadable", target="x86-vnni", graph=unreadable(), lines=(1,), says="cannot reshape array"),
    RuleCase(name="nan", target="x86-vnni", graph=layers(0.1, np.nan), lines=(2,), says="1 of 144 elements of p1"),
    RuleCase(name="infinite", target="h200", graph=layers(-np.inf, np.inf), lines=(1, 2), says="NaN or infinite"),
    RuleCase(name="norm", target="x86-vnni", graph=layers(np.nan, op="layer_norm"), lines=(1,), says="1 of 4"),
]
GOOD = [
    RuleCase(name="large", target="x86-vnni", graph=layers(3e38, 3e38)),  # their sum overflows, they do not
    RuleCase(name="mask", target="x86-vnni", graph=masked()),
    RuleCase(name="without values", target="x86-vnni", graph=replace(layers(np.nan), load=None)),
]
