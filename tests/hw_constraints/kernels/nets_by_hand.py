"""Small networks in ONNX, in float and with Q/DQ, written by hand: nothing of the code under test is in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Collects nodes; values are named by who makes them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.random = np.random.default_rng(0)

    def constant(self, array: npt.ArrayLike) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def codes(self, value: str, zero: int = 0, scale: float = 0.02) -> str:
        qparams = [self.constant(np.asarray(scale, np.float32)), self.constant(np.asarray(zero, np.uint8))]
        self.node("QuantizeLinear", [value, *qparams], f"{value}/q")
        return self.node("DequantizeLinear", [f"{value}/q", *qparams], f"{value}/dq")

    def weight(self, *shape: int, coded: bool) -> str:
        if not coded:
            return self.constant(self.random.standard_normal(shape).astype(np.float32) * 0.1)
        codes = self.constant(self.random.integers(-127, 128, shape, dtype=np.int8))
        scales = [
            self.constant(np.full(shape[0], 0.01, np.float32)),
            self.constant(np.zeros(shape[0], np.int8)),
        ]
        return self.node("DequantizeLinear", [codes, *scales], f"{codes}/dq", axis=0)

    def model(self, shape: tuple[int, ...], result: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        return bytes(model.SerializeToString())


def residual(*, coded: bool) -> bytes:
    """Stem, pool, a residual block, global pool, linear; channels are multiples of a vector."""
    net = Net()
    through = net.codes if coded else (lambda value: value)

    def conv(value: str, name: str, out: int, into: int, side: int, stride: int = 1) -> str:
        weight = net.weight(out, into, side, side, coded=coded)
        return net.node(
            *("Conv", [value, weight], name), pads=[side // 2] * 4, strides=[stride, stride], kernel_shape=[side, side]
        )

    stem = through(net.node("Relu", [conv(through("x"), "stem", 32, 3, 3, 2)], "stem_relu"))
    pool = through(net.node("MaxPool", [stem], "pool", kernel_shape=[2, 2], strides=[2, 2]))
    first = through(net.node("Relu", [conv(pool, "first", 32, 32, 3)], "first_relu"))
    second = through(conv(first, "second", 32, 32, 3))
    total = through(net.node("Relu", [net.node("Add", [second, pool], "sum")], "sum_relu"))
    mean = through(net.node("GlobalAveragePool", [total], "mean"))
    flat = through(net.node("Flatten", [mean], "flat"))
    head = net.node("Gemm", [flat, net.weight(10, 32, coded=coded)], "logits", transB=1)
    return net.model((1, 3, 32, 32), head)
