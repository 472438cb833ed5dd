"""A three-convolution Q/DQ file, sound or with one cause planted that keeps its middle convolution out of int8.

Written with ONNX's own helpers and not with our exporter, so that the proof is tested on files that it did not shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

CHANNELS = 16
SIDE = 16
SCALE = np.float32(0.05)
WEIGHT_SCALE = np.float32(0.01)
IR_VERSION = 10
MIDDLE = "conv_1"  # the layer that a cause keeps in float


@dataclass
class QdqFile:
    """A Q/DQ model under construction.

    Attributes:
        nodes: so far, in order.
        constants: so far, by name.
        opset: of the standard operators.
    """

    opset: int = 17
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    def add(self, op: str, inputs: list[str], output: str) -> str:
        """Adds an operator with one result, named like it."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output))
        return output

    def quantized(self, value: str, *, dtype: str = "uint8", scale: np.float32 = SCALE, zero_point: int = 128) -> str:
        """The value through QuantizeLinear and DequantizeLinear."""
        self.constants[f"{value}/scale"] = np.asarray(scale)
        self.constants[f"{value}/zero"] = np.asarray(zero_point, dtype)
        parameters = [f"{value}/scale", f"{value}/zero"]
        codes = self.add("QuantizeLinear", [value, *parameters], f"{value}/q")
        return self.add("DequantizeLinear", [codes, *parameters], f"{value}/dq")

    def convolution(self, name: str, data: str, *, quantized_weight: bool = True, weight_axis: int = 0) -> str:
        """A 3×3 convolution with seeded weights, int8 per output channel unless told otherwise."""
        generator = np.random.default_rng(len(self.nodes))
        codes = generator.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        if quantized_weight:
            self.constants[f"{name}.weight/codes"] = codes
            self.constants[f"{name}.weight/scale"] = np.full(CHANNELS, WEIGHT_SCALE)
            self.constants[f"{name}.weight/zero"] = np.zeros(CHANNELS, np.int8)
            parts = [f"{name}.weight/codes", f"{name}.weight/scale", f"{name}.weight/zero"]
            self.nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}.weight"], axis=weight_axis))
        else:
            self.constants[f"{name}.weight"] = codes * WEIGHT_SCALE
        self.nodes.append(helper.make_node("Conv", [data, f"{name}.weight"], [name], name=name, pads=[1, 1, 1, 1]))
        return name

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The finished model from `input` to the outputs, float32 [1, 16, 16, 16] each."""
        shape = [1, CHANNELS, SIDE, SIDE]
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", *outputs)]
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "planted", infos[:1], infos[1:], initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION)


def sound(file: QdqFile) -> onnx.ModelProto:
    """Nothing is planted: every convolution can run in int8."""
    return file.model(_last(file, file.quantized(file.convolution(MIDDLE, _first(file)))))


def input_not_quantized(file: QdqFile) -> onnx.ModelProto:
    """Before the middle convolution Q/DQ is missing."""
    data = file.convolution("conv_0", file.quantized("input"))
    return file.model(_last(file, file.quantized(file.convolution(MIDDLE, data))))


def read_in_float(file: QdqFile) -> onnx.ModelProto:
    """The middle convolution's result is also a result of the graph, in float."""
    middle = file.convolution(MIDDLE, _first(file))
    return file.model(_last(file, file.quantized(middle)), middle)


def signed_activations(file: QdqFile) -> onnx.ModelProto:
    """Codes around the middle convolution are int8, and a sum reads them, too."""
    signed = partial(file.quantized, dtype="int8", zero_point=0)
    middle = signed(file.convolution(MIDDLE, signed(file.convolution("conv_0", file.quantized("input")))))
    last = signed(file.convolution("conv_2", middle))
    return file.model(signed(file.add("Add", [last, middle], "sum")))


def activation_not_saturated(file: QdqFile) -> onnx.ModelProto:
    """A ReLU6 follows the middle convolution, but its codes reach to 12.75: dropping it would let values above 6 by."""
    middle = file.convolution(MIDDLE, _first(file))
    file.constants |= {"low": np.asarray(0, np.float32), "high": np.asarray(6, np.float32)}
    clipped = file.add("Clip", [middle, "low", "high"], "relu6")
    return file.model(_last(file, file.quantized(clipped, zero_point=0)))


def activation_not_absorbed(file: QdqFile) -> onnx.ModelProto:
    """A sigmoid stands between the middle convolution and its QuantizeLinear."""
    middle = file.add("Sigmoid", [file.convolution(MIDDLE, _first(file))], "sigmoid")
    return file.model(_last(file, file.quantized(middle)))


def weight_not_quantized(file: QdqFile) -> onnx.ModelProto:
    """The middle convolution has a float weight."""
    middle = file.convolution(MIDDLE, _first(file), quantized_weight=False)
    return file.model(_last(file, file.quantized(middle)))


def weight_asymmetric(file: QdqFile) -> onnx.ModelProto:
    """The middle convolution's weight has zero points other than 0."""
    middle = file.convolution(MIDDLE, _first(file))
    file.constants[f"{MIDDLE}.weight/zero"] = np.full(CHANNELS, 5, np.int8)
    return file.model(_last(file, file.quantized(middle)))


def weight_granularity(file: QdqFile) -> onnx.ModelProto:
    """The middle convolution's weight has its scales along the input channels."""
    middle = file.convolution(MIDDLE, _first(file), weight_axis=1)
    return file.model(_last(file, file.quantized(middle)))


def wide_codes(file: QdqFile) -> onnx.ModelProto:
    """Codes around the middle convolution have 16 bits."""
    file.opset = 21  # the first with 16-bit codes
    wide = partial(file.quantized, dtype="uint16", zero_point=32768)
    middle = wide(file.convolution(MIDDLE, wide(file.convolution("conv_0", file.quantized("input")))))
    return file.model(_last(file, file.quantized(file.add("Relu", [middle], "relu"))))


# By runtime: each has other ways to keep a layer in float, and ways to mend what stops the other. (ONNX Runtime, for
# example, quantizes a lone float weight itself; OpenVINO runs a convolution in int8 whatever follows it.)
CAUSES: dict[str, tuple[Callable[[QdqFile], onnx.ModelProto], ...]] = {
    "onnxruntime": (
        input_not_quantized,
        read_in_float,
        signed_activations,
        activation_not_saturated,
        activation_not_absorbed,
    ),
    "openvino": (
        input_not_quantized,
        wide_codes,
        weight_not_quantized,
        weight_asymmetric,
        weight_granularity,
    ),
}


def _first(file: QdqFile) -> str:
    return file.quantized(file.convolution("conv_0", file.quantized("input")))


def _last(file: QdqFile, data: str) -> str:
    return file.quantized(file.convolution("conv_2", data))
