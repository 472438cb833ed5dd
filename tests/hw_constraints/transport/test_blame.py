"""A runtime's complaint about a file of ours names the user's own line."""

import inspect

import onnx
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.blame import lines_named_in
from bitwright.hw_constraints.profile.tails import measure_tails
from bitwright.hw_constraints.transport import Journal, run_jobs
from bitwright.hw_constraints.transport.content import file_content
from bitwright.hw_constraints.transport.failures import Rejected
from bitwright.hw_constraints.transport.job import Job
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.stem_2 = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.stem_2(x).relu()


@pytest.fixture
def exported(tmp_path):
    return export_float(capture(Net(), (torch.zeros(1, 8),)).graph, tmp_path / "net.onnx")


def _change(file, change):
    """Changes the second layer of a file."""
    model = onnx.load(file)
    change(next(each for each in model.graph.node if each.name.startswith("stem_2@")))
    onnx.save(model, file)


def _unknown(node):
    node.op_type = "NoSuchOperator"


def _of_other_shape(node):
    for attribute in node.attribute:
        attribute.i = 0 if attribute.name == "transB" else attribute.i


@pytest.fixture
def broken(exported):
    """A file of ours with a layer that no runtime knows."""
    _change(exported, _unknown)
    return exported


_LINE = rf"stem_2 is .*test_blame\.py:{inspect.getsourcelines(Net.forward)[1] + 2}"


def test_a_rejected_layer_is_ours(broken, device, tmp_path):
    job = Job(artefacts={"a": file_content(broken)}, runtime="onnxruntime")
    with pytest.raises(Rejected, match=rf"the runtime rejects a: .*NoSuchOperator.*; {_LINE};"):
        run_jobs(device, [job], Journal(tmp_path / "j"))


@pytest.mark.parametrize(
    ("runtime", "change", "said"),
    [("onnxruntime", _unknown, "NoSuchOperator"), ("openvino", _of_other_shape, "Incompatible MatMul")],
)
def test_a_layer_that_is_rejected_here_is_ours_too(exported, runtime, change, said):
    backend = get_backend(runtime)
    if reason := backend.available():
        pytest.skip(reason)
    _change(exported, change)
    with pytest.raises(InputError, match=rf"{runtime} cannot load it: .*{said}.*; {_LINE}(;|$)"):
        backend.load(exported)


def test_a_process_that_has_a_copy_says_our_line(broken):
    with pytest.raises(InputError, match=rf"net\.onnx: onnxruntime cannot load it: .*NoSuchOperator.*; {_LINE}(;|$)"):
        measure_tails(broken, "onnxruntime", "same", seconds=0.1)


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
