"""Reading ONNX Runtime's trace, and its options on processors without an 8-bit dot product."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.onnxruntime import OnnxRuntimeSession, precision_of_kernel, read_trace
from bitwright.hw_constraints.machine import this_machine

IMAGE = [1, 8, 5, 5]


@pytest.mark.parametrize(
    ("op", "operands", "precision"),
    [
        ("QLinearConv", [{"uint8": IMAGE}, {"float": []}, {"uint8": []}, {"float": [8]}, {"int8": [8]}], "int8"),
        ("QLinearConcat", [{"float": []}, {"uint8": []}, {"uint8": IMAGE}, {"float": []}, {"uint8": []}], "int8"),
        ("MatMulIntegerToFloat", [{"uint8": [4, 8]}, {"int8": [8, 8]}, {"float": []}, {"float": [8]}], "int8"),
        ("DynamicQuantizeMatMul", [{"float": [4, 8]}, {"int8": [8, 8]}, {"float": []}], "int8"),
        ("MatMulNBits", [{"float": [4, 8]}, {"uint8": [8, 1, 4]}, {"float": [8]}], "float32"),
        ("Conv", [{"float": IMAGE}, {"float": [8, 8, 3, 3]}, {"float": [8]}], "float32"),
        ("QuantizeLinear", [{"float": IMAGE}, {"float": []}, {"uint8": []}], "float32"),
        ("DequantizeLinear", [{"float8e4m3fn": IMAGE}, {"float": []}], "fp8"),
        ("QLinearMatMul", [{"uint16": [2, 2]}, {"float": []}, {"uint16": []}, {"uint8": [2, 2]}], "int16"),
        ("MatMul", [{"float16": [4, 8]}, {"float16": [8, 8]}], "float16"),
        ("Relu", [{"float": [4]}], "float32"),
        ("Gather", [{"int64": [4]}, {"int64": []}], "other"),
    ],
)
def test_precision_is_read_from_the_operands(op, operands, precision):
    assert precision_of_kernel(op, operands) == precision


def node_event(name, index, op, duration):
    args = {"op_name": op, "node_index": index, "provider": "CPU", "input_type_shape": [{"float": [1, 2]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": args}


def test_the_first_run_is_left_out_and_unnamed_nodes_are_counted(tmp_path):
    runs = [
        [node_event("a", "0", "Mul", first), node_event("Mul_7", "7", "Mul", second), node_event("", "9", "Mul", 1)]
        for first, second in ((900, 800), (10, 20), (12, 40), (30, 30))
    ]
    events = [event for run in runs for event in run]
    (tmp_path / "trace.json").write_text(json.dumps([{"cat": "Session", "name": "model_run"}, *events]))
    kernels = read_trace(tmp_path / "trace.json")
    assert [(kernel.name, kernel.time_us) for kernel in kernels] == [
        ("a", 12),
        ("unnamed Mul 1", 30),
        ("unnamed Mul 2", 1),
    ]


@pytest.mark.parametrize(("isa", "exact"), [({"avx2"}, True), ({"avx2", "avx_vnni"}, False)])
def test_exact_products_are_asked_for_where_the_processor_would_saturate(reference_file, isa, exact):
    machine = replace(this_machine(), architecture="x86_64", isa=frozenset(isa))
    session = OnnxRuntimeSession(reference_file, threads=1, machine=machine)
    assert ("session.x64quantprecision" in session.settings) == exact


def test_a_file_that_the_exact_option_breaks_is_loaded_without_it():
    """Two weights with one zero point tensor, as Brevitas writes them."""
    nodes, tensors = [], {"scale": np.float32(0.1), "zero": np.uint8(0), "weight_zero": np.zeros(8, np.int8)}
    value = "x"
    for layer in range(2):
        codes = np.full((8, 8, 1, 1), 127 - layer, np.int8)
        tensors |= {f"codes{layer}": codes, f"scale{layer}": np.full(8, 0.01, np.float32)}
        weight = [f"codes{layer}", f"scale{layer}", "weight_zero"]
        nodes += [
            helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"q{layer}"]),
            helper.make_node("DequantizeLinear", [f"q{layer}", "scale", "zero"], [f"d{layer}"]),
            helper.make_node("DequantizeLinear", weight, [f"w{layer}"], axis=0),
            helper.make_node("Conv", [f"d{layer}", f"w{layer}"], [f"y{layer}"]),
        ]
        value = f"y{layer}"
    nodes.append(helper.make_node("QuantizeLinear", [value, "scale", "zero"], ["q"]))
    nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, IMAGE)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
    machine = replace(this_machine(), architecture="x86_64", isa=frozenset({"avx2"}))
    session = OnnxRuntimeSession(model, threads=1, machine=machine)
    assert session.run({"x": np.zeros(IMAGE, np.float32)})["y"].shape == tuple(IMAGE)


@pytest.mark.parametrize("code", ["FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4"])
@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
def test_a_clamp_in_front_of_narrow_codes_stays(code, clamp):
    """ONNX Runtime 1.31.1 takes the ReLU out, codes below zero or not, and refuses a Clip in front of int4."""
    kind = getattr(TensorProto, code)
    tensors = {"scale": np.float32(0.25), "low": np.float32(0), "high": np.float32(1)}
    nodes = [
        helper.make_node(clamp, ["x", "low", "high"] if clamp == "Clip" else ["x"], ["clamped"]),
        helper.make_node("QuantizeLinear", ["clamped", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "clamped",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
            [helper.make_tensor("zero", kind, [], [0]), *(numpy_helper.from_array(v, n) for n, v in tensors.items())],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    session = OnnxRuntimeSession(model.SerializeToString(), threads=1, machine=this_machine())
    found = session.run({"x": np.array([-1.0, -0.25, 0.5, 1.0], np.float32)})["y"]
    assert found.tolist() == [0.0, 0.0, 0.5, 1.0]


def test_threads_rest_between_calls():
    """A pool that spins on takes processors from the next session that is timed: by default for milliseconds."""
    rows = np.zeros((512, 512), np.float32)
    weight = numpy_helper.from_array(rows, "w")
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [512, 512]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", names[:1], names[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = get_backend("onnxruntime").load(model.SerializeToString(), threads=3)
    spent = []
    for _ in range(5):
        session.run({"x": rows})
        start = time.process_time()
        time.sleep(0.02)
        spent.append(time.process_time() - start)
    assert min(spent) < 1e-3
