"""ExecuTorch beyond the contract: threads of several sessions, kernels outside XNNPACK, programs with several methods.

Continuous integration does not install ExecuTorch (some 400 MB with what it asks for); the file runs wherever it is.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("executorch", reason="package executorch is not installed")

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge, to_edge_transform_and_lower

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.measure import measure_in_subprocess
from bitwright.quant.errors import InputError

X, Y = (np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32) for seed in (0, 1))


class Two(torch.nn.Module):
    """A linear layer, which XNNPACK takes, behind a running sum, which it does not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 3)

    def forward(self, x, y):
        return self.linear(torch.cumsum(x, 0)), x + y


@pytest.fixture(scope="module")
def module():
    return Two().eval()


@pytest.fixture(scope="module")
def program(module):
    exported = torch.export.export(module, (torch.from_numpy(X), torch.from_numpy(Y)))
    return to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


def test_inputs_and_outputs_are_counted(module, program):
    session = get_backend("executorch").load(program)
    assert [spec.name for spec in session.input_infos] == ["input_0", "input_1"]
    results = session.run({"input_1": Y, "input_0": X})
    expected = module(torch.from_numpy(X), torch.from_numpy(Y))
    for name, value in zip(("output_0", "output_1"), expected, strict=True):
        np.testing.assert_allclose(results[name], value.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_sessions_with_other_threads_live_beside_each_other(program):
    sessions = [get_backend("executorch").load(program, threads=threads) for threads in (1, 2, 1)]
    feed = {"input_0": X, "input_1": Y}
    for _ in range(2):
        first, *others = [session.run(feed)["output_0"] for session in sessions]
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_kernels_outside_the_delegate_are_named_by_their_operator(program):
    session = get_backend("executorch").load(program)
    kernels = session.profile({"input_0": X, "input_1": Y}, 3)
    found = {kernel.op: kernel.provider for kernel in kernels}
    assert found["cumsum.out"] == "CPU"
    assert found["Fully Connected (NC, F32) GEMM"] == "CPU XNNPACK"
    assert "DELEGATE_CALL" not in found


def test_methods_are_named_where_none_is_the_usual_one(module):
    exported = torch.export.export(module, (torch.from_numpy(X), torch.from_numpy(Y)))
    several = to_edge({"encode": exported, "decode": exported}).to_executorch().buffer
    message = "the program has the methods decode, encode; one of them has to be 'forward'"
    with pytest.raises(InputError, match=message):
        get_backend("executorch").load(several)
    only = to_edge({"encode": exported}).to_executorch().buffer
    assert get_backend("executorch").load(only).run({"input_0": X, "input_1": Y})["output_1"].shape == X.shape


def test_a_wrong_type_is_refused(program):
    session = get_backend("executorch").load(program)
    with pytest.raises(InputError, match="executorch cannot run it: "):
        session.run({"input_0": X.astype(np.float64), "input_1": Y})


def test_files_are_measured_and_nothing_is_printed(program, tmp_path):
    path = tmp_path / "a.pte"
    path.write_bytes(program)
    result = measure_in_subprocess({"a": (path, "executorch")}, max_seconds=1.0, min_rounds=10)
    assert result.latency("a").versions == {"executorch": get_backend("executorch").version()}
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from bitwright.hw_constraints.backends import get_backend\n"
        f"get_backend('executorch').load({str(path)!r}).executed_graph()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" == done.stderr
