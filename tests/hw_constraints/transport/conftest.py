"""A real sshd, a small model, and addresses whose device lock nobody else waits for."""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.experiments.benchmarks import loopback_ssh
from bitwright.hw_constraints.transport import Device


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory):
    reason = loopback_ssh.missing()
    if reason:
        assert not os.environ.get("BITWRIGHT_REQUIRE_SSHD"), reason
        pytest.skip(reason)
    server = loopback_ssh.LoopbackSsh(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def ssh_address(ssh_server, tmp_path):
    return ssh_server.address(tmp_path / "device", lock=str(tmp_path / "device.lock"))


@pytest.fixture
def local_address(tmp_path):
    return f"local:{tmp_path / 'device'}?python={sys.executable}&lock={tmp_path / 'device.lock'}"


@pytest.fixture
def device(local_address):
    with Device(local_address) as place:
        yield place


@pytest.fixture
def model(tmp_path):
    return matmul(tmp_path / "model.onnx", 32)


@pytest.fixture
def larger_model(tmp_path):
    return matmul(tmp_path / "larger.onnx", 256)


def matmul(path: Path, width: int) -> Path:
    weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="the_layer")],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


class Executions:
    """The device's append-only log."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "executions.log"

    def __call__(self, event: str) -> list[str]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [line.split()[2] for line in lines if line.split()[1] == event]


@pytest.fixture
def executions(tmp_path):
    return Executions(tmp_path / "device")
