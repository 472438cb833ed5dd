"""What decides how a runtime opens a file: read from its bytes, and what comes of it."""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.onnx_contents import NARROW, Contents, contents_of
from bitwright.hw_constraints.runtime_settings import onnxruntime_settings, openvino_settings
from bitwright.hw_constraints.transport.runner.runtimes import runtime

X = np.linspace(-3, 3, 64, dtype=np.float32).reshape(4, 16)


def model(nodes: list[onnx.NodeProto], **initializers: np.ndarray) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    values[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)
    stored = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def rectified(codes: type) -> onnx.ModelProto:
    """A ReLU in front of codes that go below zero: its quantizer does not clamp there."""
    return model(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Neg", ["x"], ["n"]),
            helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("Add", ["d", "n"], ["y"]),
        ],
        scale=np.float32(0.5),
        zero=np.zeros((), codes),
    )


def weights_alone(codes: type = ml_dtypes.int4) -> onnx.ModelProto:
    return model(
        [
            helper.make_node("DequantizeLinear", ["w", "scale"], ["d"], axis=0, block_size=16),
            helper.make_node("MatMul", ["x", "d"], ["y"]),
        ],
        w=np.arange(16 * 8).reshape(16, 8).astype(np.int8).__mod__(7).astype(codes),
        scale=np.full((1, 8), 0.37, np.float32),
    )


def both_in_codes(codes: type = np.int8) -> onnx.ModelProto:
    """A linear layer as other tools write it: weights and activations in codes, its bias in an Add."""
    return model(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "scale", "none"], ["d"]),
            helper.make_node("MatMul", ["a", "d"], ["m"]),
            helper.make_node("Add", ["m", "bias"], ["y"]),
        ],
        w=(np.arange(16 * 8).reshape(16, 8) % 7).astype(codes),
        scale=np.float32(0.125),
        zero=np.uint8(128),
        none=np.zeros((), codes),
        bias=np.ones(8, np.float32),
    )


MODELS = {
    "both in codes": both_in_codes(),
    "both in codes, int4": both_in_codes(ml_dtypes.int4),
    "float8": rectified(ml_dtypes.float8_e4m3fn),
    "int4": rectified(ml_dtypes.int4),
    "int8": rectified(np.int8),
    "int4 weights": weights_alone(),
    "int8 weights": weights_alone(np.int8),
}


def by_the_package(found: onnx.ModelProto) -> Contents:
    """The same with the package `onnx`."""
    types = {each.name: each.data_type for each in found.graph.initializer}
    written = [node for node in found.graph.node if node.op_type == "QuantizeLinear"]
    dequantized = {n.output[0]: n.input[0] for n in found.graph.node if n.op_type == "DequantizeLinear"}
    products = [
        node
        for node in found.graph.node
        if node.op_type == "MatMul"
        and dequantized.get(node.input[1]) in types
        and (dequantized.get(node.input[0], "w") in types or types[dequantized[node.input[1]]] in NARROW)
    ]
    named = frozenset(types[name] for node in written for name in node.input[2:])
    output = frozenset(each.i for node in written for each in node.attribute if each.name == "output_dtype")
    return Contents(frozenset(types.values()), named | output, bool(products))


@pytest.mark.parametrize("name", MODELS)
def test_bytes_say_what_the_package_reads(name: str, tmp_path: Path) -> None:
    onnx.save(MODELS[name], tmp_path / "model.onnx")
    assert contents_of(tmp_path / "model.onnx") == by_the_package(MODELS[name]) != Contents()
    assert contents_of(MODELS[name].SerializeToString()) == by_the_package(MODELS[name])


def test_a_file_with_activations_in_codes_is_opened_as_anybody_does() -> None:
    """What is left out for weights alone would keep a product and its bias apart here."""
    plain = {"graph_optimization_level": "ORT_ENABLE_ALL", "intra_op_num_threads": "1"}
    machine = replace(this_machine(), isa=frozenset({"avx512_vnni"}))
    found = onnxruntime_settings(MODELS["both in codes"].SerializeToString(), threads=1, machine=machine)
    assert found == plain
    assert onnxruntime_settings(MODELS["int8 weights"].SerializeToString(), threads=1, machine=machine) != plain


def test_an_output_type_without_zero_point() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], output_dtype=TensorProto.INT4)
    found = model([node], scale=np.float32(0.5))
    assert contents_of(found.SerializeToString()) == by_the_package(found)
    assert contents_of(found.SerializeToString()).written == {TensorProto.INT4}


@example(cut=189, flipped=127, byte=8)  # a number in the place of an initializer
@given(cut=st.integers(0, 400), flipped=st.integers(0, 400), byte=st.integers(0, 255))
@settings(max_examples=50, deadline=None)
def test_what_is_no_model_says_nothing_and_stops_nobody(cut: int, flipped: int, byte: int) -> None:
    whole = bytearray(MODELS["float8"].SerializeToString())
    whole[flipped % len(whole)] = byte
    assert isinstance(contents_of(bytes(whole[:cut])), Contents)
    assert contents_of("no such file") == Contents()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("of", ["onnxruntime", "openvino"])
def test_a_device_opens_a_file_as_this_machine_does_and_both_compute_what_it_says(
    name: str, of: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(MODELS[name], path)
    here, there = get_backend(of).load(path, threads=1), runtime(of).load(str(path), 1)
    wanted = {
        "onnxruntime": onnxruntime_settings(path, threads=1, machine=this_machine()),
        "openvino": openvino_settings(path, threads=1),
    }
    assert there.settings == here.settings == wanted[of]
    expected = onnx.reference.ReferenceEvaluator(MODELS[name]).run(None, {"x": X})[0]
    result = there.run({"x": X})
    given = next(iter(result.values())) if of == "openvino" else result[0]
    # Activations in 8 bits would be off by a percent.
    np.testing.assert_allclose(here.run({"x": X})["y"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
