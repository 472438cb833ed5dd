"""Pieces of small ONNX models: constants, operators, tensors in codes of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # as our exporter writes (quant.export.onnx_qdq.DEFAULT_OPSET)
_IR_VERSION = 9  # the first that holds this opset: onnx/docs/Versioning.md
# Scales for standard normal activations and small weights; no runtime's speed depends on their values.
ACTIVATION_SCALE, ACTIVATION_ZERO = 0.04, 100
WEIGHT_SCALE = 0.01


class Parts:
    """Collects nodes and constants under unique names; values are given and returned by name."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.results: list[onnx.ValueInfoProto] = []
        self.codes: dict[str, str] = {}  # of each value that comes out of codes
        self._constants: list[TensorProto] = []

    def input(self, shape: Sequence[int]) -> str:
        """A float32 argument of the model."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def constant(self, array: npt.ArrayLike) -> str:
        """A stored tensor; a NumPy scalar gives one without dimensions."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """An operator with one result."""
        return self.nodes_of(op, inputs, 1, **attributes)[0]

    def nodes_of(self, op: str, inputs: Sequence[str], results: int, **attributes: Any) -> list[str]:
        """An operator with several results."""
        name = f"{op}{len(self.nodes)}"
        outputs = [f"{name}.{index}" for index in range(results)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs

    def result(self, value: str, element_type: int = TensorProto.FLOAT) -> None:
        """Makes a value a result of the model."""
        self.results.append(helper.make_tensor_value_info(value, element_type, None))

    def quantized(self, value: str, *, scale: float = ACTIVATION_SCALE, zero: int = 0) -> str:
        """The value through codes: uint8 per tensor."""
        qparams = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        codes = self.node("QuantizeLinear", [value, *qparams])
        result = self.node("DequantizeLinear", [codes, *qparams])
        self.codes[result] = codes
        return result

    def weight(self, shape: Sequence[int], *, coded: bool, axis: int = 0) -> str:
        """A random weight; in codes it is int8 with a scale for each output channel, the same for all weights."""
        if not coded:
            fan_in = max(1, int(np.prod(shape)) // shape[axis])
            return self.constant((self.random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))
        codes = self.constant(self.random.integers(-127, 128, shape, dtype=np.int8))
        channels = shape[axis]
        scales = self.constant(_weight_scales(channels))
        zeros = self.constant(np.zeros(channels, np.int8))
        return self.node("DequantizeLinear", [codes, scales, zeros], axis=axis)

    def positive(self, channels: int) -> str:
        """Random numbers above zero: scales, variances."""
        return self.constant(self.random.uniform(0.5, 1.5, channels).astype(np.float32))

    def bias(self, channels: int, *, coded: bool) -> str:
        """A random bias; in codes it is int32 with scale(activation) * scale(weight)."""
        if not coded:
            return self.constant(self.random.standard_normal(channels).astype(np.float32))
        codes = self.constant(self.random.integers(-1000, 1000, channels, dtype=np.int32))
        scale = self.constant(np.float32(ACTIVATION_SCALE) * _weight_scales(channels))
        return self.node("DequantizeLinear", [codes, scale, self.constant(np.zeros(channels, np.int32))], axis=0)

    def model(self) -> bytes:
        """The file's bytes, without nodes that nothing depends on: ONNX Runtime would run them."""
        needed = {item.name for item in self.results}
        nodes = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        graph = helper.make_graph(nodes[::-1], "minimal", self.inputs, self.results, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        return bytes(model.SerializeToString())


def _weight_scales(channels: int) -> npt.NDArray[np.float32]:
    """One for each channel, not all alike."""
    return (WEIGHT_SCALE * (1 + np.arange(channels) % 3 / 2)).astype(np.float32)
