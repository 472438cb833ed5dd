import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.experiments.benchmarks.rows.fp8_h200 import corner_codes, fp8_macs, ml_dtypes_codes


def test_codes_are_divided_clamped_and_cast():
    # 448 is the largest finite value; 464 would round to NaN if it were not clamped first (OCP OFP8, section 5.3).
    codes = ml_dtypes_codes(np.float32([0.0, 448.0, 464.0, 1e9, -1e9, 1.0]), np.float32(1.0))
    assert codes.tolist() == [0x00, 0x7E, 0x7E, 0x7E, 0xFE, 0x38]


def test_our_codes_of_every_float16_are_those_of_ml_dtypes():
    ours, truth = corner_codes()
    assert ours.size == 1 << 16
    np.testing.assert_array_equal(ours, truth)


def test_macs_count_as_fp8_when_both_operands_are(tmp_path):
    file = tmp_path / "two.onnx"
    onnx.save(half_fp8_model(), file)
    assert fp8_macs(file) == (50.0, 2)


def half_fp8_model():
    """Two matrix products of 1×4×4, the first on fp8 codes, the second on float."""
    weight = np.eye(4, dtype=np.float32)
    constants = {
        "scale": np.float32(1.0),
        "zero": np.zeros((), ml_dtypes.float8_e4m3fn),
        "codes": weight.astype(ml_dtypes.float8_e4m3fn),
        "weight": weight,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x/q"]),
        helper.make_node("DequantizeLinear", ["x/q", "scale", "zero"], ["x/dq"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w/dq"]),
        helper.make_node("MatMul", ["x/dq", "w/dq"], ["first"]),
        helper.make_node("MatMul", ["first", "weight"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "half", infos[:1], infos[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
