"""Small Q/DQ networks to prove, built node by node so that each flaw is planted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SCALE = 0.05
WEIGHT_SCALE = 0.002
_ZERO = {np.uint8: 128, np.int8: 0, np.uint16: 32768}


class QdqNetwork:
    """Collects nodes; every method returns the name of the value that it made."""

    def __init__(self, *, activations: Any = np.uint8, weights: Any = np.int8, opset: int = 17) -> None:
        self.activations, self.weights, self.opset = activations, weights, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.scales: dict[str, float] = {}
        self.random = np.random.default_rng(0)

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{output}/n", domain=domain, **attributes))
        return output

    def qdq(self, value: str, *, scale: float = SCALE, zero_point: int | None = None) -> str:
        zero_point = _ZERO[self.activations] if zero_point is None else zero_point
        qparams = self.constant(np.float32(scale)), self.constant(self.activations(zero_point))
        result = self.node("DequantizeLinear", self.node("QuantizeLinear", value, *qparams), *qparams)
        self.scales[result] = scale
        return result

    def weight(self, *shape: int, axis: int = 0, zero_point: int | None = None, largest: int = 60) -> str:
        zero_point = _ZERO[self.weights] if zero_point is None else zero_point
        codes = self.random.integers(-largest, largest + 1, shape) + (128 if self.weights is np.uint8 else 0)
        scales = self.constant(np.full(shape[axis], WEIGHT_SCALE, np.float32))
        zeros = self.constant(np.full(shape[axis], zero_point, self.weights))
        return self.node("DequantizeLinear", self.constant(codes.astype(self.weights)), scales, zeros, axis=axis)

    def bias(self, value: str, channels: int, *, off_by: float = 1.0) -> str:
        expected = np.float32(self.scales.get(value, SCALE)) * np.full(channels, WEIGHT_SCALE, np.float32)
        codes = self.constant(self.random.integers(-1000, 1000, channels).astype(np.int32))
        scale = self.constant((expected * off_by).astype(np.float32))
        return self.node("DequantizeLinear", codes, scale, self.constant(np.zeros(channels, np.int32)), axis=0)

    def conv(self, value: str, channels: tuple[int, int], *, size: int = 3, groups: int = 1, bias: bool = True) -> str:
        weight = self.weight(channels[1], channels[0] // groups, size, size)
        extra = [self.bias(value, channels[1])] if bias else []
        return self.node("Conv", value, weight, *extra, group=groups, pads=[size // 2] * 4)

    def relu6(self, value: str) -> str:
        return self.node("Clip", value, self.constant(np.float32(0)), self.constant(np.float32(6)))

    def model(
        self, *outputs: str, shape: tuple[int, ...] = (1, 16, 12, 12), extra: dict[str, Any] | None = None
    ) -> Any:
        inputs = {"image": shape, **(extra or {})}
        graph = helper.make_graph(
            self.nodes,
            "planted",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def inverted_residual(*, quantize_branch: bool = True, quantize_sum: bool = True) -> onnx.ModelProto:
    """1x1 + ReLU6, depthwise + ReLU6, linear 1x1, residual add, 1x1 + ReLU6, pool, linear: MobileNetV2 in small."""
    net = QdqNetwork()
    image = net.qdq("image")
    value = net.qdq(net.relu6(net.conv(image, (16, 48), size=1)), scale=6 / 255, zero_point=0)
    value = net.qdq(net.relu6(net.conv(value, (48, 48), groups=48)), scale=6 / 255, zero_point=0)
    value = net.conv(value, (48, 16), size=1)
    value = net.node("Add", image, net.qdq(value) if quantize_branch else value)
    value = net.qdq(value) if quantize_sum else value
    value = net.qdq(net.relu6(net.conv(value, (16, 32), size=1)), scale=6 / 255, zero_point=0)
    value = net.qdq(net.node("GlobalAveragePool", value), scale=6 / 255, zero_point=0)
    value = net.qdq(net.node("Flatten", value), scale=6 / 255, zero_point=0)
    value = net.node("Gemm", value, net.weight(10, 32), net.bias(value, 10), transB=1)
    return net.model(net.qdq(value))


def float_resnet18() -> onnx.ModelProto:
    """ResNet-18's layers (He et al. 2016, table 1) at 224 x 224 with zero weights: for its shapes only."""
    net = QdqNetwork()

    def conv(value: str, channels: tuple[int, int], size: int, stride: int) -> str:
        weight = net.constant(np.zeros((channels[1], channels[0], size, size), np.float32))
        return net.node("Conv", value, weight, pads=[size // 2] * 4, strides=[stride] * 2)

    value = net.node("Relu", conv("image", (3, 64), 7, 2))
    value = net.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = 64
    for width, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first_stride, 1):
            branch = conv(net.node("Relu", conv(value, (before, width), 3, stride)), (width, width), 3, 1)
            shortcut = value if stride == 1 and before == width else conv(value, (before, width), 1, stride)
            value, before = net.node("Relu", net.node("Add", branch, shortcut)), width
    value = net.node("Flatten", net.node("GlobalAveragePool", value))
    value = net.node("Gemm", value, net.constant(np.zeros((1000, 512), np.float32)), transB=1)
    return net.model(value, shape=(1, 3, 224, 224))


@pytest.fixture
def network() -> type[QdqNetwork]:
    return QdqNetwork


@pytest.fixture
def block() -> Any:
    return inverted_residual


@pytest.fixture
def resnet18() -> onnx.ModelProto:
    return float_resnet18()


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Writes a model and returns its path."""

    def save(model: onnx.ModelProto, name: str = "model.onnx") -> Path:
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def image() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((1, 16, 12, 12)).astype(np.float32)
