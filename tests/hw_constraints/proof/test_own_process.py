"""Runtimes in processes of their own, asked by a double that third parties could ship: one that ends its process."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bitwright.experiments.cli import build_app
from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof import prove
from bitwright.hw_constraints.proof.case import read_case
from bitwright.hw_constraints.proof.onnx_graph import read_onnx
from bitwright.hw_constraints.proof.own_process import OwnProcessBackend
from bitwright.hw_constraints.proof.probe import Prober
from bitwright.quant.errors import InputError

_DOUBLE = """
import os, signal, weakref
from bitwright.hw_constraints.backends.onnxruntime import OnnxRuntimeBackend

class Double(OnnxRuntimeBackend):
    name = "double"
    package = "onnxruntime"
    alive = weakref.WeakSet()

    def _open(self, artifact, *, threads):
        session = super()._open(artifact, threads=threads)
        if isinstance(artifact, bytes):
            if b"Sigmoid" in artifact:
                os.kill(os.getpid(), signal.SIGSEGV)
            if b"Tanh" in artifact:
                os._exit(3)
        elif "wrong" in artifact.name:
            raise KeyError("no such thing")
        Double.alive.add(session)
        session.settings["alive"] = str(len(Double.alive))
        print("printed by the runtime")
        return session

BACKEND = Double()
"""


@pytest.fixture
def double(tmp_path_factory, monkeypatch):
    """The name of a runtime that is ONNX Runtime, and ends its process with certain operators."""
    folder = tmp_path_factory.mktemp("double")
    (folder / "double_runtime.py").write_text(_DOUBLE)
    (folder / "double-1.dist-info").mkdir()
    (folder / "double-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: double\nVersion: 1\n")
    (folder / "double-1.dist-info" / "entry_points.txt").write_text(
        "[bitwright.backends]\ndouble = double_runtime:BACKEND\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(folder)
    return "double"


def test_a_file_that_ends_the_runtime_is_named_and_the_next_one_is_proved(double, network, saved, capfd):
    net = network()
    path = saved(net.model(net.qdq(net.node("Sigmoid", net.qdq("image")))))
    done = CliRunner().invoke(build_app(), ["prove", str(path), "--runtime", double])
    assert done.exit_code == 2
    assert done.stderr == f"bitwright: {path}: double ended its process with SIGSEGV, a fault of the runtime\n"
    assert done.stdout == ""
    exits = network()
    path = saved(exits.model(exits.node("Tanh", "image")))
    message = f"{path}: double ended its process with exit code 3, a fault of the runtime"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        prove(path, double, runs=1)
    sound = network()
    (layer,) = prove(saved(sound.model(sound.qdq(sound.conv(sound.qdq("image"), (16, 8))))), double, runs=1).layers
    assert (layer.op, layer.state, layer.kernel) == ("Conv", "int8", "QLinearConv")
    assert capfd.readouterr().out == ""  # what a runtime prints does not stand between our lines


def test_a_probe_that_ends_the_runtime_does_not_help(double, network, saved):
    """A layer alone may end a runtime that takes the file: it is a case like one that the runtime refuses."""
    net = network()
    graph = read_onnx(saved(net.model(net.qdq(net.node("Sigmoid", net.qdq("image"))))))
    (index,) = (index for index, node in enumerate(graph.nodes) if node.op_type == "Sigmoid")
    case = read_case(graph, index)
    backend = OwnProcessBackend(get_backend(double), Path("a.onnx"))
    assert not Prober(backend).runs_in_int8(case)
    assert Prober(get_backend("onnxruntime")).runs_in_int8(case)


def test_sessions_end_with_their_process_or_when_nobody_holds_them(double, network, saved):
    net = network()
    path = saved(net.model(net.node("Relu", "image")))
    backend = OwnProcessBackend(get_backend(double), path)
    first = backend.load(path)
    assert backend.load(path).settings["alive"] == "2"
    assert backend.load(path).settings["alive"] == "2"  # the one before is gone, the first is held
    dies = network()
    with pytest.raises(
        InputError, match=r"model\.onnx: double ended its process with SIGSEGV, a fault of the runtime$"
    ):
        backend.load(dies.model(dies.node("Sigmoid", "image")).SerializeToString())
    with pytest.raises(
        InputError, match=r"model\.onnx: double ended its process with SIGSEGV, a fault of the runtime$"
    ):
        first.run({})
    assert backend.load(path).settings["alive"] == "1"


def test_a_defect_in_the_process_is_shown_with_its_traceback(double, network, saved):
    net = network()
    path = saved(net.model(net.node("Relu", "image")))
    path = path.rename(path.with_name("wrong.onnx"))
    with pytest.raises(RuntimeError, match=r"(?s)double_runtime\.py.*KeyError: 'no such thing'"):
        OwnProcessBackend(get_backend(double), path).load(path)


def test_results_and_refusals_are_those_of_the_runtime_here(block, saved, image, tmp_path):
    path = saved(block())
    here, there = (get_backend("onnxruntime"), OwnProcessBackend(get_backend("onnxruntime"), path))
    ours, theirs = here.load(path), there.load(path)
    for name, value in ours.run({"image": image}).items():
        np.testing.assert_array_equal(theirs.run({"image": image})[name], value)
    assert theirs.executed_graph() == ours.executed_graph()
    assert [kernel.name for kernel in theirs.profile({"image": image}, 1)] == [
        kernel.name for kernel in ours.profile({"image": image}, 1)
    ]
    assert (theirs.input_infos, theirs.output_infos) == (ours.input_infos, ours.output_infos)
    assert (theirs.settings, theirs.threads) == (ours.settings, 1)
    (tmp_path / "bad.onnx").write_bytes(b"hello, world")
    refusals = []
    for backend in (here, there):
        with pytest.raises(InputError) as refusal:
            backend.load(tmp_path / "bad.onnx")
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]


def test_a_relative_path_is_one_from_the_folder_of_now(block, saved, tmp_path, monkeypatch):
    path = saved(block())
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        there = path.rename(tmp_path / name / f"{name}.onnx")
        monkeypatch.chdir(tmp_path / name)
        assert prove(Path(there.name), "onnxruntime", runs=1).layers
        path = there
