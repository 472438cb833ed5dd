"""LiteRT beyond the contract: int8, several delegated parts, open shapes, refusals."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")

from bitwright.experiments.benchmarks.tflite_writer import TfliteWriter
from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.litert_profiler import read_events
from bitwright.hw_constraints.measure import measure_in_subprocess
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.quant.errors import InputError

RANDOM = np.random.default_rng(0)
INPUT, OUTPUT = (0.05, 3), (0.1, -7)  # scale, zero point
WEIGHT_SCALES = np.array([0.01, 0.02, 0.005, 0.03], np.float32)
WEIGHT = RANDOM.integers(-127, 128, (4, 8), dtype=np.int8)
BIAS = RANDOM.integers(-2000, 2000, 4, dtype=np.int32)


def fully_connected(writer, source, name="output"):
    """An int8 linear layer [n, 8] → [n, 4], scales per output channel, as LiteRT's quantization spec has it."""
    weight = writer.tensor(f"{name}.weight", (4, 8), "int8", data=WEIGHT, scale=WEIGHT_SCALES)
    bias = writer.tensor(f"{name}.bias", (4,), "int32", data=BIAS, scale=INPUT[0] * WEIGHT_SCALES)
    result = writer.tensor(name, (5, 4), "int8", scale=OUTPUT[0], zero_point=OUTPUT[1])
    writer.operator("FULLY_CONNECTED", [source, weight, bias], [result], "FullyConnectedOptions")
    return result


@pytest.fixture(scope="module")
def int8_file():
    writer = TfliteWriter()
    source = writer.tensor("codes", (5, 8), "int8", scale=INPUT[0], zero_point=INPUT[1])
    return writer.content([source], [fully_connected(writer, source)])


def integer_reference(codes):
    """round(s_x s_w / s_y (sum (q_x - z_x) q_w + b)) + z_y: https://arxiv.org/abs/1712.05877, equation 7."""
    sums = (codes.astype(np.int64) - INPUT[1]) @ WEIGHT.T.astype(np.int64) + BIAS
    real = sums * (INPUT[0] * WEIGHT_SCALES.astype(np.float64) / OUTPUT[0])
    return np.clip(np.rint(real) + OUTPUT[1], -128, 127).astype(np.int8)


def onnx_reference(codes):
    """The same layer as Q/DQ, in ONNX Runtime."""
    tensors = {
        "scale": np.float32(INPUT[0]),
        "zero": np.int8(INPUT[1]),
        "weight": WEIGHT,
        "weight_scale": WEIGHT_SCALES,
        "bias": (BIAS * (INPUT[0] * WEIGHT_SCALES)).astype(np.float32),
        "out_scale": np.float32(OUTPUT[0]),
        "out_zero": np.int8(OUTPUT[1]),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale"], ["w"], axis=0),
        helper.make_node("Gemm", ["x", "w", "bias"], ["y"], transB=1),
        helper.make_node("QuantizeLinear", ["y", "out_scale", "out_zero"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("codes", TensorProto.INT8, codes.shape)],
        [helper.make_tensor_value_info("output", TensorProto.INT8, (5, 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"codes": codes})[0]


def test_int8_equals_integer_arithmetic_and_onnx_runtime(int8_file):
    session = get_backend("litert").load(int8_file)
    for _ in range(20):
        codes = RANDOM.integers(-128, 128, (5, 8), dtype=np.int8)
        found = session.run({"codes": codes})["output"].astype(np.int64)
        # A tie may fall to either side: the rescaling is in float32 there.
        assert np.abs(found - integer_reference(codes)).max() <= 1
        assert np.abs(found - onnx_reference(codes)).max() <= 1
        assert np.mean(found == integer_reference(codes)) >= 0.95


def test_codes_are_described_and_made_up(int8_file):
    session = get_backend("litert").load(int8_file)
    (spec,) = session.input_infos
    assert (spec.dtype, spec.scale, spec.zero_point) == ("int8", pytest.approx(INPUT[0]), INPUT[1])
    assert (session.output_infos[0].scale, session.output_infos[0].zero_point) == (pytest.approx(OUTPUT[0]), OUTPUT[1])
    codes = made_up_inputs(session, "a", 0)["codes"]
    expected = np.random.default_rng(0).standard_normal((5, 8))
    real = INPUT[0] * (codes.astype(np.float64) - INPUT[1])
    inside = np.abs(expected) < 100 * INPUT[0]
    np.testing.assert_allclose(real[inside], expected[inside], atol=INPUT[0] / 2 + 1e-6)


def test_int8_runs_in_int8_by_the_profile(int8_file):
    session = get_backend("litert").load(int8_file)
    kernels = session.profile({"codes": np.zeros((5, 8), np.int8)}, 2)
    (linear,) = (kernel for kernel in kernels if "Fully Connected" in kernel.op)
    assert (linear.precision, linear.provider) == ("int8", "CPU XNNPACK")


def test_files_are_measured_in_a_process_of_their_own(int8_file, tmp_path):
    path = tmp_path / "int8.tflite"
    path.write_bytes(int8_file)
    result = measure_in_subprocess({"a": (path, "litert")}, max_seconds=1.0, min_rounds=10)
    assert 0 < result.latency("a").median_us < 1e4
    assert result.latency("a").versions == {"litert": get_backend("litert").version()}


SIZE = (1, 6, 6)


def two_parts() -> bytes:
    """A running sum, which XNNPACK does not have, between convolutions; `late` comes before `left` in the file."""
    writer = TfliteWriter()
    weight, bias = RANDOM.standard_normal((4, 4, 3, 3)).astype(np.float32), np.zeros(4, np.float32)
    image = writer.tensor("image", (*SIZE, 4))
    first = writer.conv(image, "first", weight, bias, size=SIZE)
    axis, total = writer.tensor("axis", (), "int32", data=1), writer.tensor("total", (*SIZE, 4))
    writer.operator("CUMSUM", [first, axis], [total], "CumsumOptions")
    late = writer.conv(total, "late", weight, bias, size=SIZE)
    left = writer.conv(writer.conv(image, "left", weight, bias, size=SIZE), "left2", weight, bias, size=SIZE)
    output = writer.tensor("output", (*SIZE, 4))
    writer.operator("ADD", [late, left], [output], "AddOptions")
    return writer.content([image], [output])


def test_executed_operators_are_those_of_the_file_in_the_order_of_a_run():
    executed = get_backend("litert").load(two_parts()).executed_graph()
    named = [(node.op.split(" ")[0], node.originals) for node in executed if node.originals]
    # XNNPACK's first part is everything that does not need the running sum, whatever its place in the file.
    assert named == [
        ("Convolution", ("first",)),
        ("Convolution", ("left",)),
        ("Convolution", ("left2",)),
        ("CUMSUM", ("total",)),
        ("Convolution", ("late",)),
    ]


def test_a_node_outside_the_delegate_has_the_precision_of_what_it_reads():
    kernels = get_backend("litert").load(two_parts()).profile({"image": np.zeros((*SIZE, 4), np.float32)}, 1)
    (outside,) = (kernel for kernel in kernels if kernel.op == "CUMSUM")
    assert (outside.provider, outside.precision) == ("CPU", "float32")


def test_an_open_batch_is_resized():
    writer = TfliteWriter()
    source, result = writer.tensor("x", (-1, 4)), writer.tensor("y", (-1, 4))
    writer.operator("RELU", [source], [result])
    session = get_backend("litert").load(writer.content([source], [result]))
    assert session.input_infos[0].shape == (None, 4)
    for rows in (1, 3, 2):
        batch = RANDOM.standard_normal((rows, 4)).astype(np.float32)
        np.testing.assert_array_equal(session.run({"x": batch})["y"], np.maximum(batch, 0))
        assert session.profile({"x": batch}, 1)
    with pytest.raises(InputError, match=r"'x' has shape \(2, 5\); the model takes \(None, 4\)"):
        session.run({"x": np.zeros((2, 5), np.float32)})


def test_a_wrong_type_is_litert_s_message(int8_file):
    session = get_backend("litert").load(int8_file)
    with pytest.raises(InputError, match=r"litert cannot run it: .*FLOAT32.*INT8"):
        session.run({"codes": np.zeros((5, 8), np.float32)})


def test_a_refused_node_is_named():
    writer = TfliteWriter()
    source, hidden, result = (writer.tensor(name, (2, 2)) for name in ("x", "hidden", "block.3.act"))
    writer.operator("RELU", [source], [hidden])
    writer.operator("CUSTOM", [hidden], [result], custom_code=b"SoftSign9")
    message = r"litert cannot load it: .*SoftSign9.*Node number 1 .* \(it computes 'block\.3\.act'\)"
    with pytest.raises(InputError, match=message):
        get_backend("litert").load(writer.content([source], [result]))


def test_damaged_files_end_in_a_message_and_not_in_a_crash(int8_file, tmp_path):
    """Torn, and with bytes changed: in a process of its own, since a crash would take the tests along."""
    (tmp_path / "good").write_bytes(int8_file)
    code = (
        "import pathlib, random, sys\n"
        "import numpy as np\n"
        "from bitwright.hw_constraints.backends import get_backend\n"
        "from bitwright.quant.errors import InputError\n"
        "good, chosen, refused = pathlib.Path(sys.argv[1]).read_bytes(), random.Random(0), 0\n"
        "for turn in range(80):\n"
        "    bad = bytearray(good[: chosen.randrange(len(good))] if turn % 2 else good)\n"
        "    for _ in range(3):\n"
        "        bad[8 + chosen.randrange(max(len(bad) - 8, 1)) if len(bad) > 8 else 0] = chosen.randrange(256)\n"
        "    try:\n"
        "        session = get_backend('litert').load(bytes(bad))\n"
        "        session.run({s.name: np.zeros(s.shape, s.dtype) for s in session.input_infos})\n"
        "    except InputError:\n"
        "        refused += 1\n"
        "print(refused)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "good")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert 40 <= int(done.stdout) <= 80


def test_a_profiler_of_another_layout_is_refused():
    event_bytes = 104  # of 2.3.0: tag, type, 2 times, 2 x 3 of memory, 2 of metadata, source
    with pytest.raises(InputError, match=r"its profiler wrote 176 bytes for 2 events, not 104 each as in 2\.3\.0"):
        read_events(lambda count: b"\0" * (88 * count) + b"\xa5" * 500, 2)
    assert read_events(lambda count: b"\0" * event_bytes + b"\xa5" * 500, 1) == []


def test_nothing_is_printed(int8_file, tmp_path):
    (tmp_path / "a.tflite").write_bytes(int8_file)
    code = (
        "from bitwright.hw_constraints.backends import get_backend\n"
        f"s = get_backend('litert').load({str(tmp_path / 'a.tflite')!r}); s.executed_graph()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" == done.stdout


def test_openvino_reads_the_same_file(reference, image, tmp_path):
    from reference_network import tflite_case

    openvino = get_backend("openvino")
    if reason := openvino.available():
        pytest.skip(reason)
    case = tflite_case(reference, tmp_path)
    feed = case.feed(image)
    ours = get_backend("litert").load(case.artifact).run(feed)["output"]
    np.testing.assert_allclose(openvino.load(case.artifact).run(feed)["output"], ours, rtol=1e-4, atol=1e-5)
