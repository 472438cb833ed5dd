"""A runtime's complaint about a file of ours names the user's own line."""

import inspect

import onnx
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.transport import Journal, run_jobs
from bitwright.hw_constraints.transport.blame import lines_named_in
from bitwright.hw_constraints.transport.content import file_content
from bitwright.hw_constraints.transport.failures import Rejected
from bitwright.hw_constraints.transport.job import Job
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.stem_2 = nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x)
        return self.stem_2(x).relu()


@pytest.fixture
def exported(tmp_path):
    return export_float(capture(Net(), (torch.zeros(1, 8),)).graph, tmp_path / "net.onnx")


def test_a_rejected_layer_is_ours(exported, device, tmp_path):
    model = onnx.load(exported)
    node = next(each for each in model.graph.node if each.name.startswith("stem_2@"))
    node.op_type = "NoSuchOperator"
    onnx.save(model, exported)
    job = Job(artefacts={"a": file_content(exported)}, runtime="onnxruntime")
    line = inspect.getsourcelines(Net.forward)[1] + 2
    message = rf"the runtime rejects a: .*NoSuchOperator.*; stem_2 is .*test_blame\.py:{line};"
    with pytest.raises(Rejected, match=message):
        run_jobs(device, [job], Journal(tmp_path / "j"))


@pytest.mark.parametrize(
    ("message", "layers"),
    [
        ("bad node stem_2@0.0.0/Gemm", ["stem_2"]),
        ("bad nodes stem@0.0.0/Gemm, stem_2@0.0.0", ["stem", "stem_2"]),
        ("bad node system@0.0.0/Gemm, stem_2@0.0.01", []),
    ],
)
def test_layers_are_told_apart(exported, message, layers):
    assert [each.partition(" is ")[0] for each in lines_named_in(message, [exported])] == layers


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sources": 3}'])
def test_a_file_without_a_usable_provenance_says_nothing(exported, text):
    exported.with_suffix(".provenance.json").write_text(text)
    assert lines_named_in("bad node stem@0.0.0/Gemm", [exported]) == ()
    exported.with_suffix(".provenance.json").unlink()
    assert lines_named_in("bad node stem@0.0.0/Gemm", [exported]) == ()
