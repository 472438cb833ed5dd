"""TensorRT as links without a device: a session that answers as TensorRT's does, with ONNX Runtime computing.

That TensorRT itself gives the network is up to the contract suite of links on a machine that has a device.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from bitwright.hw_constraints import parity_tensorrt
from bitwright.hw_constraints.backends.base import ExecutedNode
from bitwright.hw_constraints.parity_tensorrt import EngineLink, TensorRTLink
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.parity import Inputs, LinkError, compare_links
from bitwright.quant.parity.torch_links import CapturedLink


class Session:
    """An engine whose first convolution has swallowed its ReLU: one layer, which writes the ReLU's value."""

    def __init__(self, artifact: Any) -> None:
        content = artifact if isinstance(artifact, bytes) else artifact.read_bytes()
        self._model = onnx.load_from_string(content)
        self._runs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.input_infos = tuple(SimpleNamespace(name=each.name) for each in self._runs.get_inputs())

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        conv, relu, *rest = self._model.graph.node
        fused = ExecutedNode(name=f"{conv.name} + {relu.name}", op="conv", inputs=("x",), outputs=(relu.output[0],))
        others = (ExecutedNode(name=each.name, op="layer", outputs=tuple(each.output)) for each in rest)
        return (fused, *others)

    def run(self, inputs: Any) -> dict[str, Any]:
        if set(inputs) != {each.name for each in self.input_infos}:
            raise InputError("tensorrt cannot run it")
        names = [each.name for each in self._runs.get_outputs()]
        return dict(zip(names, self._runs.run(names, dict(inputs)), strict=True))


@pytest.fixture(name="made")
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CapturedLink, Path, Inputs]:
    monkeypatch.setattr(parity_tensorrt, "_session", Session)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Sigmoid()).eval()
    image = torch.randn(1, 3, 8, 8)
    captured = capture(network, (image,))
    return CapturedLink(captured), export_float(captured.graph, tmp_path / "a.onnx"), Inputs(args=(image,))


def test_only_what_the_engine_still_has_is_shown_and_judged(made: Any) -> None:
    reference, path, inputs = made
    link = TensorRTLink(path)
    names = [each for each in reference.tensors if "conv" not in reference.tensors[each].op]
    first_conv = next(each for each, tensor in reference.tensors.items() if "conv" in tensor.op)
    assert first_conv not in link.tensors and set(names) - {"x", "input"} <= set(link.tensors)
    found = compare_links(reference, link, [inputs])
    assert found.agrees and len(found.layers) >= 3


def test_a_fault_is_found_in_the_layer_that_took_the_operator_in(made: Any) -> None:
    reference, path, inputs = made
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1] *= 1.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    (fault,) = compare_links(reference, TensorRTLink(path), [inputs]).breaks
    assert fault.tensor.op == "relu"


def test_an_engine_gives_its_results_alone(made: Any) -> None:
    reference, path, inputs = made
    link = EngineLink(path)
    assert not link.tensors and not link.takes_tensors
    found = compare_links(reference, link, [inputs])
    assert found.agrees and not found.layers and len(found.results) == 1
    with pytest.raises(LinkError, match=r"a\.onnx: takes 1 tensors \(.*\); the data have 2"):
        link.run(Inputs(args=(*inputs.args, *inputs.args)))


def test_what_cannot_be_used_is_said(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path, inputs = made

    def session(artifact: Any) -> Any:
        raise InputError("backend 'tensorrt' needs: pip install 'bitwright[tensorrt]'")

    monkeypatch.setattr(parity_tensorrt, "_session", session)
    for make in (EngineLink, lambda file: TensorRTLink(file).run(inputs)):
        with pytest.raises(LinkError, match=r"needs: pip install 'bitwright\[tensorrt\]'"):
            make(path)
