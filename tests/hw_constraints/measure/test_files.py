"""Measuring files on real runtimes, in this process and in one of its own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.measure import measure_files, measure_in_subprocess
from bitwright.hw_constraints.measure.process import ask_worker, now_at
from bitwright.quant.errors import InputError

QUICK = {"max_seconds": 2.0, "min_rounds": 10}


def matmul_file(path: Path, width: int, *, batch: int | str = 1) -> Path:
    weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 128, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.fixture
def small(tmp_path):
    return matmul_file(tmp_path / "small.onnx", 128)


@pytest.fixture
def large(tmp_path):
    return matmul_file(tmp_path / "large.onnx", 512)


def test_more_work_takes_longer(small, large):
    # 16 times the multiply-accumulates: no noise turns that around.
    result = measure_files({"small": (small, "onnxruntime"), "large": (large, "onnxruntime")}, **QUICK)
    assert result.ratio("large", "small").verdict == "slower"
    assert result.latency("small").versions == {"onnxruntime": get_backend("onnxruntime").version()}


def test_a_process_of_its_own_says_the_same(small, large):
    files = {"small": (small, "onnxruntime"), "large": (large, "onnxruntime")}
    result = measure_in_subprocess(files, **QUICK)
    assert result.ratio("large", "small").verdict == "slower"
    assert result.rounds >= len(result.times_us["small"]) > 0


def test_given_inputs_reach_the_process(tmp_path):
    path = matmul_file(tmp_path / "open.onnx", 64, batch="n")
    batch = {"x": np.zeros((3, 128, 64), np.float32)}
    result = measure_in_subprocess({"a": (path, "onnxruntime")}, inputs={"a": batch}, **QUICK)
    assert result.latency("a").median_us > 0
    with pytest.raises(InputError, match=r"input 'x' has shape \(3, 128, 32\); the model takes \(None, 128, 64\)"):
        measure_in_subprocess({"a": (path, "onnxruntime")}, inputs={"a": {"x": batch["x"][..., :32]}}, **QUICK)


@pytest.mark.parametrize("measure", [measure_files, measure_in_subprocess])
def test_refusals(measure, small, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        measure({"a": (tmp_path / "none.onnx", "onnxruntime")}, **QUICK)
    with pytest.raises(InputError, match="unknown backend 'tflite'"):
        measure({"a": (small, "tflite")}, **QUICK)
    with pytest.raises(InputError, match=r"inputs for \['b'\]; the candidates are \['a'\]"):
        measure({"a": (small, "onnxruntime")}, inputs={"b": {"x": np.zeros(1)}}, **QUICK)


def test_inputs_that_cannot_be_made_up(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["i"], ["y"])],
        "indices",
        [helper.make_tensor_value_info("i", TensorProto.INT64, (4,))],
        [helper.make_tensor_value_info("y", TensorProto.INT64, (4,))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "i.onnx")
    with pytest.raises(InputError, match=r"a: input 'i' is int64 of shape \(4,\): give inputs for it"):
        measure_files({"a": (tmp_path / "i.onnx", "onnxruntime")}, **QUICK)


_KILLS_ITSELF = """
import os, signal, sys
from bitwright.hw_constraints.measure.process import now_at, serve

def answer(request):
    now_at("first.onnx", "onnxruntime")
    now_at("second.onnx", "openvino")
    os.kill(os.getpid(), signal.SIGSEGV)

sys.exit(serve(answer))
"""


def test_a_runtime_that_kills_its_process_is_named_with_the_file(tmp_path, monkeypatch, capfd):
    (tmp_path / "kills_itself.py").write_text(_KILLS_ITSELF)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    message = "^second.onnx: openvino ended its process with SIGSEGV, a fault of the runtime: it wrote nothing$"
    with pytest.raises(InputError, match=message):
        ask_worker("kills_itself", {}, threads=1)
    now_at("a.onnx", "openvino")  # not in a worker: nobody would read it
    assert capfd.readouterr().err == ""


def test_a_process_that_dies_is_reported(small, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(InputError, match="the measuring process ended with 1: it wrote nothing"):
        measure_in_subprocess({"a": (small, "onnxruntime")}, **QUICK)
