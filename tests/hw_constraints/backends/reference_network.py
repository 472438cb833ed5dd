"""One small network in each kind of file that a runtime reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 16, 40, 40)


class Reference(torch.nn.Module):
    """Two convolutions, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(16, 64, 3, padding=1)
        self.second = torch.nn.Conv2d(64, 64, 3, padding=1)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(image))))
        return self.head(hidden.mean((2, 3)))


def as_onnx(module: Reference) -> onnx.ModelProto:
    """The same network, written by hand."""
    weights = {name: numpy_helper.from_array(value.detach().numpy(), name) for name, value in module.named_parameters()}
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["output"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 10))],
        list(weights.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@dataclass(frozen=True)
class Case:
    """The network as one kind of runtime takes it.

    Attributes:
        artifact: what is loaded.
        suffix: of such a file; empty for modules.
        input: the name of its input.
        output: the name of its output.
        axes: how its input is laid out, as a permutation of NCHW.
    """

    artifact: Any
    suffix: str = ""
    input: str = "image"
    output: str = "output"
    axes: tuple[int, ...] = (0, 1, 2, 3)

    def feed(self, image: Any) -> dict[str, Any]:
        """The inputs of a run."""
        return {self.input: np.ascontiguousarray(image.transpose(self.axes))}


def onnx_case(module: Reference, folder: Path) -> Case:
    path = folder / "reference.onnx"
    onnx.save(as_onnx(module), path)
    return Case(path, ".onnx")


def tflite_case(module: Reference, folder: Path) -> Case:
    from bitwright.experiments.benchmarks.tflite_writer import reference_tflite

    path = folder / "reference.tflite"
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    path.write_bytes(reference_tflite(weights))
    return Case(path, ".tflite", axes=(0, 2, 3, 1))


def pte_case(module: Reference, folder: Path) -> Case:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(module, (torch.zeros(SHAPE),))
    path = folder / "reference.pte"
    path.write_bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
    return Case(path, ".pte", input="input")


CASES: dict[str, Callable[[Reference, Path], Case]] = {"onnx": onnx_case, "tflite": tflite_case, "pte": pte_case}
