"""Profiles of small networks on the runtimes that are here: what must hold whatever the machine's mood."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.kernels import split
from bitwright.hw_constraints.predict.prediction import LayerLatency, NetworkPrediction
from bitwright.hw_constraints.profile.expected import estimate_file
from bitwright.hw_constraints.profile.layers import profile_file, profile_from
from bitwright.hw_constraints.profile.predicted import expected_of
from bitwright.hw_constraints.profile.profiler_cost import profiler_us
from bitwright.hw_constraints.profile.rebatch import rebatched
from bitwright.hw_constraints.profile.tails import measure_tails
from bitwright.hw_constraints.profile.throughput import measure_throughput
from bitwright.hw_constraints.proof import State, prove
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize

PROOF = Path(__file__).parents[1] / "proof"
RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(get_backend(name).available()), reason="not here"))
    for name in ("onnxruntime", "openvino")
]


def inverted_residual(**options):
    spec = importlib.util.spec_from_file_location("proof_networks", PROOF / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.inverted_residual(**options)


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "block.onnx"
    onnx.save(inverted_residual(), path)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_layers_conversions_and_overhead_add_up_to_the_run(block, runtime):
    found = profile_file(block, runtime, seconds=0.1)
    assert found.layers_us + found.conversions_us + found.overhead_us == pytest.approx(found.wall_us)
    assert found.slices >= 6 and found.wall_low <= found.wall_us <= found.wall_high
    assert all(layer.low <= layer.us <= layer.high for layer in found.layers if layer.low is not None)
    proved = prove(block, runtime)
    assert {layer.name: layer.state for layer in found.layers} == {
        layer.name: layer.state for layer in proved.layers if layer.folded_into is None
    }
    members = [name for layer in found.layers for name in (layer.name, *layer.members)]
    assert sorted(members) == sorted(layer.name for layer in proved.layers)


def big_and_small(convolutions, small):
    """Convolutions of 55 MMAC and operators that do next to nothing, in a row."""
    random, value, nodes, weights = np.random.default_rng(0), "x", [], []
    for index in range(convolutions):
        weight = (random.standard_normal((64, 64, 3, 3)) / 24).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], name=f"conv{index}", pads=[1] * 4))
        value = f"c{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"], name="pool"))
    value = "pool"
    for index in range(small):
        nodes.append(helper.make_node("Sin" if index % 2 else "Softplus", [value], [f"s{index}"], name=f"small{index}"))
        value = f"s{index}"
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 14, 14])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.slow
def test_large_layers_are_right_though_the_profiler_slows_small_ones(tmp_path):
    """A convolution's time from the difference of two networks' runs, without any profiler."""
    for convolutions in (2, 4):
        onnx.save(big_and_small(convolutions, 60), tmp_path / f"{convolutions}.onnx")
    two, four = (profile_file(tmp_path / f"{count}.onnx", "onnxruntime", seconds=1.0) for count in (2, 4))
    true = (four.wall_us - two.wall_us) / 2
    measured = np.mean([layer.us for layer in two.layers if layer.op == "Conv"])
    assert measured == pytest.approx(true, rel=0.25)
    assert two.profiler_us > 0


def test_a_profiler_costs_something_and_less_than_a_kernel_of_note():
    assert 0 <= profiler_us(get_backend("onnxruntime"), threads=1) < 20


def test_modelled_times_stand_beside_those_of_a_report(block):
    """Both of the same accelerator's toolchain: absolute times are compared."""
    reports = [PROOF / "reports" / "tensorrt" / name for name in ("layers.json", "profile.json")]
    target = load_target("tensorrt-orin")
    found = profile_from(block, reports, target=target)
    assert found.is_same_device and found.modelled_us > 0
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["conv10/n"].state is State.FLOAT
    assert "slower than modelled: runs in float (TensorRT ran it in float16" in by_name["conv10/n"].remark
    estimate = estimate_file(block, target)
    computing = [each.us for each in estimate.layers if estimate.lowered.by_name[each.name].block.nodes]
    assert found.modelled_us == pytest.approx(estimate.us)
    assert sum(layer.modelled_us for layer in found.layers) == pytest.approx(sum(computing))
    assert found.layers_us + found.conversions_us + found.overhead_us == pytest.approx(found.wall_us)


def test_predicted_times_stand_beside_measured_layers(block):
    """A prediction of a nanosecond a kernel: every layer of note is said to be slower than that."""
    kernels = split(block, "onnxruntime").kernels
    layers = [
        LayerLatency(kernel=each.kernel, layers=each.layers, us=0.001, spread=0.1, measured=True) for each in kernels
    ]
    prediction = NetworkPrediction(
        us=5.0, low=4.0, high=6.0, level=0.9, spread=0.1, overheads={}, layers=tuple(layers), where="a table"
    )
    found = profile_file(block, "onnxruntime", seconds=0.1, predict=lambda: expected_of(prediction))
    assert found.predicted_us == 5.0
    assert "predicted: the interval of the whole at 90 % is 4 to 6 µs" in found.notes
    computing = [layer for layer in found.layers if layer.op in ("Conv", "Gemm", "Add")]
    assert all(layer.predicted_us == pytest.approx(0.001, rel=1e-6) for layer in computing)
    assert all("than predicted" in layer.remark or "no measurable time" in layer.remark for layer in computing)


def test_velas_estimate_and_ours_of_the_same_accelerator_agree(tmp_path):
    """The compiler's own report beside the model that follows its decisions: no layer is apart by a quarter."""
    spec = importlib.util.spec_from_file_location("elsewhere", PROOF / "test_elsewhere.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 16)
    target = load_target("ethos-u65-512")
    quantized = quantize(capture(module.Small().eval(), (x,)), target.scheme(), [(x,)])
    path = export_onnx_qdq(quantized, tmp_path / "small.onnx")
    found = profile_from(path, sorted((PROOF / "reports" / "vela").iterdir()), target=target)
    assert found.is_same_device and found.origin == "modelled"
    assert found.modelled_us == pytest.approx(found.wall_us, rel=0.01)
    assert [layer.remark for layer in found.layers if layer.remark] == []
    assert found.conversions == () and found.modules["stem.0"] == pytest.approx(2.238)
    assert "test_elsewhere.py:" in found.layers[0].source


def test_a_report_without_times_is_refused(block):
    with pytest.raises(InputError, match=r"layers.json: has no times; `bitwright prove .* --how tensorrt`"):
        profile_from(block, [PROOF / "reports" / "tensorrt" / "layers.json"])


def test_a_target_without_costs_is_refused(block):
    with pytest.raises(InputError, match="cost"):
        profile_file(block, "onnxruntime", target=load_target("x86-vnni"))


@pytest.mark.parametrize("co_runner", ["same", pytest.param("memory", marks=pytest.mark.slow)])
def test_tails_beside_another_process(block, co_runner):
    found = measure_tails(block, "onnxruntime", co_runner, seconds=0.1)
    for each in (found.alone, found.beside):
        assert each.p50.low <= each.p50.us <= each.p50.high <= each.p99.us * 1.0001
        assert each.runs >= 6 * 5
    assert found.slowdown.rounds >= 6
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["alone"]["p50"]["us"] == found.alone.p50.us
    assert ("copies memory" in found.co_runner) == (co_runner == "memory")


def test_a_co_runner_that_cannot_start_is_one_message(block):
    with pytest.raises(InputError, match="co-runner 'noise'; there are: same, memory"):
        measure_tails(block, "onnxruntime", "noise", seconds=0.1)


def test_a_co_runner_ends_with_a_run_that_is_killed():
    code = (
        "from bitwright.hw_constraints.profile.co_runner import co_runner\n"
        "import time\n"
        "with co_runner({'co_runner': 'memory'}, [0]) as other, other.running():\n"
        "    print(other._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = Path("/proc") / parent.stdout.readline().strip()
    assert "co_runner" in (child / "cmdline").read_text()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while child.exists() and "co_runner" in (child / "cmdline").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "co_runner" not in (child / "cmdline").read_text()


def test_throughput_over_batches_and_streams(block):
    found = measure_throughput(block, "onnxruntime", batches=(1, 3), streams=(1, 2), seconds=0.1)
    assert [(each.batch, each.streams) for each in found] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert all(each.reason == "" and each.low <= each.per_second <= each.high for each in found)
    with pytest.raises(InputError, match="at least 1 is needed"):
        measure_throughput(block, "onnxruntime", batches=(0,))


def reshaping(target):
    """A network whose Reshape names its batch, or mixes samples."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "target"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
        "reshaping",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(target, np.int64), "target")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_a_batch_that_memory_does_not_hold_is_a_reason(block):
    (found,) = measure_throughput(block, "onnxruntime", batches=(10**8,), seconds=0.1)
    assert found.per_second is None
    said = r".*block\.onnx: batch 100000000 takes [\d,.]+ GiB to make up input '\w+', at most 4 are allowed; give a s"
    assert re.match(said, found.reason), found.reason


def test_a_file_that_the_runtime_refuses_goes_by_its_own_name(tmp_path):
    model = inverted_residual()
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "late.onnx")
    with pytest.raises(InputError, match=r"^\S*/late\.onnx: onnxruntime cannot load it: ") as raised:
        profile_file(tmp_path / "late.onnx", "onnxruntime", seconds=0.1)
    assert "model.onnx" not in str(raised.value)


def test_a_batch_is_changed_where_results_prove_it():
    backend = get_backend("onnxruntime")
    changed = rebatched(reshaping([1, 24]), 3, backend, "net", threads=1)
    session = backend.load(changed.SerializeToString())
    assert session.run({"x": np.ones((3, 4, 6), np.float32)})["z"].shape == (3, 24)
    assert rebatched(reshaping([24]), 1, backend, "net", threads=1) == reshaping([24])
    for target in ([24], [6, 4], [-1]):
        with pytest.raises(InputError, match="net: fixes its batch size of 1"):
            rebatched(reshaping(target), 3, backend, "net", threads=1)
