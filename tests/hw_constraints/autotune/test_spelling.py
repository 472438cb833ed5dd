"""SiLU as one operator: the same results, one kernel in place of two, and shapes stay known."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.spelling import fuse_silu
from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof.onnx_graph import read_onnx


def executed(file) -> list[str]:
    session = get_backend("onnxruntime").load(file, threads=1)
    return [node.op for node in session.executed_graph()]


def test_behind_codes_the_runtime_runs_one_kernel_and_computes_the_same(candidates, samples, tmp_path):
    files = {
        spelled: candidates.write(Decision(spelled=spelled), tmp_path / f"{spelled}.onnx") for spelled in (False, True)
    }
    assert "QuickGelu" not in executed(files[False])
    assert executed(files[True]).count("QuickGelu") == 1
    for sample in samples(4, 11):
        plain, spelled = (ort.InferenceSession(str(file)).run(None, sample)[0] for file in files.values())
        np.testing.assert_allclose(spelled, plain, atol=2e-2)  # a tie of rounding may fall the other way
    graph = read_onnx(files[True])
    assert all(graph.shape(value) is not None for node in graph.nodes for value in node.output)


def test_what_only_looks_like_silu_stays():
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["silu"]),  # the gate is read once more
        helper.make_node("Mul", ["silu", "gate"], ["y"]),
        helper.make_node("Sigmoid", ["y"], ["other"]),
        helper.make_node("Mul", ["x", "other"], ["z"]),  # gated by something else
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xz"]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]))
    before = model.SerializeToString()
    assert fuse_silu(model) == 0
    assert model.SerializeToString() == before


def test_operands_may_stand_either_way_round():
    for operands in (["x", "gate"], ["gate", "x"]):
        nodes = [helper.make_node("Sigmoid", ["x"], ["gate"]), helper.make_node("Mul", operands, ["y"])]
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
        model = helper.make_model(
            helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 20)],
            ir_version=9,
        )  # fmt: skip
        assert fuse_silu(model) == 1
        onnx.checker.check_model(model)
        x = np.array([[-3, -1, 0, 2]], np.float32)
        (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
        np.testing.assert_allclose(found, x / (1 + np.exp(-x)), rtol=1e-5)
