"""Small `.tflite` files: for tests and rows about LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from bitwright.quant.export.tflite_file import TfliteFile

Array = npt.NDArray[Any]


class TfliteWriter(TfliteFile):
    """A file with a convolution in one call."""

    def conv(
        self, source: int, name: str, weight: Array, bias: Array, *, size: Sequence[int], relu: bool = True
    ) -> int:
        """Adds a convolution, stride 1, SAME; `weight` is ONNX's [out, in, height, width]."""
        data = np.asarray(weight).transpose(0, 2, 3, 1)
        filters = self.tensor(f"{name}.weight", data.shape, data=data)
        offsets = self.tensor(f"{name}.bias", bias.shape, data=bias)
        result = self.tensor(name, (*size, len(bias)))
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        activation = schema.ActivationFunctionType.RELU if relu else schema.ActivationFunctionType.NONE
        options |= {"padding": schema.Padding.SAME, "fusedActivationFunction": activation}
        self.operator("CONV_2D", [source, filters, offsets], [result], "Conv2DOptions", **options)
        return result


def reference_tflite(weights: dict[str, Array]) -> bytes:
    """The network of the backends' contract: two convolutions, a spatial mean, a linear layer."""
    writer = TfliteWriter()
    image = writer.tensor("image", (1, 40, 40, 16))
    value = image
    for layer in ("first", "second"):
        bias = weights[f"{layer}.bias"]
        value = writer.conv(value, layer, weights[f"{layer}.weight"], bias, size=(1, 40, 40))
    axes = writer.tensor("axes", (2,), "int32", data=[1, 2])
    mean = writer.tensor("mean", (1, 64))
    writer.operator("MEAN", [value, axes], [mean], "ReducerOptions")
    head = [writer.tensor(name, weights[name].shape, data=weights[name]) for name in ("head.weight", "head.bias")]
    output = writer.tensor("output", (1, 10))
    writer.operator("FULLY_CONNECTED", [mean, *head], [output], "FullyConnectedOptions")
    return writer.content([image], [output])
