"""A graph as the int8 TensorFlow Lite network that Vela compiles: NHWC, activations fused, weights quantized.

Weights carry the codes of our scheme (per output channel, symmetric, min-max). All activations share one scale, since a
compiler's cost hangs on shapes, formats and the weights' codes alone; the file is for costs, not for accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.cost.ethos_u.weight_codes import weight_codes
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, TensorRef

SCALE = 1 / 16
UNIT_SCALE, UNIT_ZERO = 1 / 256, -128  # what TensorFlow Lite prescribes for LOGISTIC's result
TANH_SCALE = 1 / 128  # and for TANH's
ACTIVATIONS = ("relu", "hardtanh")
FUSABLE = ("conv2d", "conv_transpose2d", "linear", "add", "mul", "sub")
VIEWS = ("flatten", "view", "reshape", "dropout")


@dataclass
class TfliteNetwork:
    """The description that `peers/workers/vela_tflite.py` writes, under construction."""

    graph: Graph
    tensors: list[dict[str, Any]] = field(default_factory=list)
    operators: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    positions: dict[TensorRef, int] = field(default_factory=dict)

    def activation(self, ref: TensorRef) -> int:
        """The position of an activation, made on first use; 4-D shapes become NHWC."""
        if ref not in self.positions:
            self.positions[ref] = self.tensor(str(ref), _nhwc(self.graph.tensors[ref].shape), "int8", [SCALE], [0])
        return self.positions[ref]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str,
        scale: list[float],
        zero_point: list[int],
        axis: int = 0,
        data: npt.NDArray[Any] | None = None,
    ) -> int:
        """Adds a tensor; returns its position."""
        key = None
        if data is not None:
            key = f"a{len(self.arrays)}"
            self.arrays[key] = data
        entry = {"name": name, "shape": list(shape), "type": kind, "scale": scale, "zero_point": zero_point}
        self.tensors.append({**entry, "axis": axis, "data": key})
        return len(self.tensors) - 1

    def integers(self, name: str, values: Any) -> int:
        """Adds a constant int32 tensor."""
        data = np.asarray(values, dtype=np.int32)
        return self.tensor(name, data.shape, "int32", [], [], data=data)

    def operator(self, op: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        """Adds an operator."""
        self.operators.append({"op": op, "inputs": inputs, "outputs": outputs, "options": options})

    def described(self) -> dict[str, Any]:
        """As JSON."""
        inputs = [self.activation(ref) for ref in self.graph.inputs]
        outputs = [self.activation(ref) for ref in self.graph.outputs]
        return {"tensors": self.tensors, "operators": self.operators, "inputs": inputs, "outputs": outputs}


def tflite_network(graph: Graph) -> TfliteNetwork:
    """Describes a network with its batch norms folded.

    Raises:
        InputError: an operator that this writer does not know.
    """
    network = TfliteNetwork(graph)
    fused: set[str] = set()
    for node in graph.nodes:
        if node.name in fused:
            continue
        write = _WRITERS.get(node.op)
        if write is None:
            raise InputError(f"node {node.name!r}: no TensorFlow Lite form for {node.op!r} here")
        last, activation = _fused_activation(graph, node)
        fused.add(last.name)
        write(network, node, network.activation(last.outputs[0]), activation)
    return network


def _fused_activation(graph: Graph, node: Node) -> tuple[Node, str]:
    follower = graph.sole_consumer(node.outputs[0]) if node.op in FUSABLE else None
    if follower is None or follower.op not in ACTIVATIONS:
        return node, ""
    return follower, "relu" if follower.op == "relu" else "relu6"


def _nhwc(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    known = tuple(int(size or 1) for size in shape)
    return (known[0], known[2], known[3], known[1]) if len(known) == 4 else known


def _same_padding(size: int, result: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after."""
    total = max((result - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _conv(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    graph = network.graph
    source, weight = node.tensors[0], node.tensors[1]
    codes, scales = weight_codes(graph, node)
    channels, results = graph.tensors[source].shape[1], codes.shape[0]
    depthwise = node.attributes["groups"] == channels and node.attributes["groups"] > 1
    # [out, in, kh, kw] → [out, kh, kw, in], or [1, kh, kw, out] for depthwise.
    data = codes.transpose(0, 2, 3, 1)
    if depthwise:
        data = codes.reshape(results, *codes.shape[2:]).transpose(1, 2, 0)[None]
    axis = 3 if depthwise else 0
    zeros = [0] * results
    filters = network.tensor(str(weight), data.shape, "int8", scales.tolist(), zeros, axis, data)
    bias = _bias(network, node, results, scales)
    (sy, sx), (dy, dx) = node.attributes["stride"], node.attributes["dilation"]
    inputs, padding = _padded(network, node, source, codes.shape[2:], (sy, sx), (dy, dx))
    options = {"padding": padding, "stride_w": sx, "stride_h": sy, "fused_activation_function": activation}
    options |= {"dilation_w_factor": dx, "dilation_h_factor": dy}
    if depthwise:
        options["depth_multiplier"] = results // int(channels or 1)
    network.operator("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [inputs, filters, bias], [output], **options)


def _padded(
    network: TfliteNetwork,
    node: Node,
    source: TensorRef,
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, str]:
    """The input, behind a PAD where the padding is neither none nor SAME."""
    shape, result = network.graph.tensors[source].shape, network.graph.tensors[node.outputs[0]].shape
    pads = node.attributes["padding"]
    if not any(pads):
        return network.activation(source), "VALID"
    same = [
        _same_padding(int(shape[axis + 2] or 1), int(result[axis + 2] or 1), kernel[axis], stride[axis], dilation[axis])
        for axis in (0, 1)
    ]
    if all(same[axis] == (pads[axis], pads[axis]) for axis in (0, 1)):
        return network.activation(source), "SAME"
    n, h, w, c = _nhwc(shape)
    padded = (n, h + 2 * pads[0], w + 2 * pads[1], c)
    position = network.tensor(f"{node.name}.padded", padded, "int8", [SCALE], [0])
    amounts = network.integers(f"{node.name}.pads", [[0, 0], [pads[0]] * 2, [pads[1]] * 2, [0, 0]])
    network.operator("PAD", [network.activation(source), amounts], [position])
    return position, "VALID"


def _bias(network: TfliteNetwork, node: Node, results: int, scales: npt.NDArray[np.float64]) -> int:
    scale = (scales * SCALE).tolist()
    bias = np.zeros(results, dtype=np.int32)
    if len(node.tensors) > 2:
        bias = np.rint(network.graph.array(node.tensors[2]) / np.asarray(scale)).astype(np.int32)
    return network.tensor(f"{node.name}.bias", (results,), "int32", scale, [0] * results, 0, bias)


def _linear(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    codes, scales = weight_codes(network.graph, node)
    results = codes.shape[0]
    filters = network.tensor(str(node.tensors[1]), codes.shape, "int8", scales.tolist(), [0] * results, 0, codes)
    inputs = [network.activation(node.tensors[0]), filters, _bias(network, node, results, scales)]
    network.operator("FULLY_CONNECTED", inputs, [output], fused_activation_function=activation)


def _binary(op: str) -> Callable[[TfliteNetwork, Node, int, str], None]:
    def write(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
        inputs = [network.activation(ref) for ref in node.tensors]
        network.operator(op, inputs, [output], fused_activation_function=activation)

    return write


def _sigmoid(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    network.tensors[output] |= {"scale": [UNIT_SCALE], "zero_point": [UNIT_ZERO]}
    network.operator("LOGISTIC", [network.activation(node.tensors[0])], [output])


def _tanh(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    network.tensors[output] |= {"scale": [TANH_SCALE], "zero_point": [0]}
    network.operator("TANH", [network.activation(node.tensors[0])], [output])


def _gelu(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    approximate = node.attributes["approximate"] == "tanh"
    network.operator("GELU", [network.activation(node.tensors[0])], [output], approximate=approximate)


def _leaky_relu(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    slope = float(node.attributes["negative_slope"])
    network.operator("LEAKY_RELU", [network.activation(node.tensors[0])], [output], alpha=slope)


def _silu(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    source = network.activation(node.tensors[0])
    shape = tuple(network.tensors[source]["shape"])
    gate = network.tensor(f"{node.outputs[0]}.gate", shape, "int8", [UNIT_SCALE], [UNIT_ZERO])
    network.operator("LOGISTIC", [source], [gate])
    network.operator("MUL", [source, gate], [output], fused_activation_function="")


def _unary(op: str) -> Callable[[TfliteNetwork, Node, int, str], None]:
    def write(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
        network.operator(op, [network.activation(node.tensors[0])], [output])

    return write


def _pool(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    shape, result = network.graph.tensors[node.tensors[0]].shape, network.graph.tensors[node.outputs[0]].shape
    if node.op == "adaptive_avg_pool2d":
        kernel = stride = [int(shape[axis] or 1) // int(result[axis] or 1) for axis in (2, 3)]
    else:
        kernel = list(node.attributes["kernel_size"])
        stride = list(node.attributes["stride"] or kernel)
    floor = [(int(shape[axis + 2] or 1) - kernel[axis]) // stride[axis] + 1 for axis in (0, 1)]
    # Padding is SAME's wherever the window needs any: its side is free to differ from PyTorch's, its cost does not.
    padding = "VALID" if floor == list(result[2:]) else "SAME"
    options = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_height": kernel[0], "filter_width": kernel[1], "fused_activation_function": ""}
    op = "MAX_POOL_2D" if node.op == "max_pool2d" else "AVERAGE_POOL_2D"
    network.operator(op, [network.activation(node.tensors[0])], [output], **options)


def _cat(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    rank = len(network.graph.tensors[node.outputs[0]].shape)
    axis = node.attributes["dim"] % rank
    axis = (0, 3, 1, 2)[axis] if rank == 4 else axis
    inputs = [network.activation(ref) for ref in node.tensors]
    network.operator("CONCATENATION", inputs, [output], axis=axis, fused_activation_function="")


def _view(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    shape = list(_nhwc(network.graph.tensors[node.outputs[0]].shape))
    target = network.integers(f"{node.name}.shape", shape)
    network.operator("RESHAPE", [network.activation(node.tensors[0]), target], [output], new_shape=shape)


def _upsample(network: TfliteNetwork, node: Node, output: int, activation: str) -> None:
    height, width = network.graph.tensors[node.outputs[0]].shape[2:]
    size = network.integers(f"{node.name}.size", [height, width])
    inputs = [network.activation(node.tensors[0]), size]
    network.operator("RESIZE_NEAREST_NEIGHBOR", inputs, [output], align_corners=False, half_pixel_centers=False)


_WRITERS: dict[str, Callable[[TfliteNetwork, Node, int, str], None]] = {
    "conv2d": _conv,
    "linear": _linear,
    "add": _binary("ADD"),
    "mul": _binary("MUL"),
    "relu": _unary("RELU"),
    "hardtanh": _unary("RELU6"),
    "hardswish": _unary("HARD_SWISH"),
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "elu": _unary("ELU"),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "silu": _silu,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _pool,
    "cat": _cat,
    "upsample_nearest2d": _upsample,
    **dict.fromkeys(VIEWS, _view),
}
