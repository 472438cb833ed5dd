"""Calibration caches that TensorRT or NVIDIA's tools wrote, and damaged ones; ours are tested with their exporter."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.calibration_cache import as_digits, read_calibration_cache

# The first lines of NVIDIA-AI-IOT/cuDLA-samples, data/model/qat2ptq.cache.
PUBLISHED = """TRT-8600-EntropyCalibration2
images: 3c00f9f4
/model.0/act/Mul_output_0: 3e6c9314
/model.1/act/Mul_output_0: 3e870ad0
"""
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)


def write(folder: Path, text: str, name: str = "net.calib.cache") -> Path:
    (folder / name).write_text(text)
    return folder / name


def network(folder: Path) -> Path:
    """One convolution and what follows it, with names as torch.onnx gives them."""
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight"], ["/conv/Conv_output_0"], name="/conv/Conv"),
        helper.make_node("Relu", ["/conv/Conv_output_0"], ["/Relu_output_0"], name="/Relu"),
        helper.make_node("Exp", ["/Relu_output_0"], ["out"], name="/Exp"),
    ]
    ends = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8]),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 6, 6])]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "conv.weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "net.onnx")
    return folder / "net.onnx"


def test_a_published_cache_is_read(tmp_path: Path) -> None:
    scales = read_calibration_cache(write(tmp_path, PUBLISHED))
    assert list(scales) == ["images", "/model.0/act/Mul_output_0", "/model.1/act/Mul_output_0"]
    assert scales["images"] == struct.unpack(">f", bytes.fromhex("3c00f9f4"))[0]
    assert scales["images"] * 127 == pytest.approx(1.0, rel=1e-3)  # pictures from 0 to 1
    assert [as_digits(scale) for scale in scales.values()] == ["3c00f9f4", "3e6c9314", "3e870ad0"]


def test_a_scale_of_zero_is_none(tmp_path: Path) -> None:
    text = "TRT-8401-EntropyCalibration2\ninput: 3caa54fc\n(Unnamed Layer* 64) [Shuffle]_output: 0\n"
    assert list(read_calibration_cache(write(tmp_path, text))) == ["input"]


def test_without_precisions_layers_are_int8_with_a_scale_for_each_channel(tmp_path: Path) -> None:
    path = network(tmp_path)
    unnamed = "(Unnamed Layer* 64) [Shuffle]_output: 3d000000"  # in the caches that TensorRT writes
    write(tmp_path, f"TRT-8600-EntropyCalibration2\nimages: 3c00f9f4\n{unnamed}\n/Relu_output_0: 3d000000\n")
    imported = graph_from_onnx(path)
    assert imported.plan is not None
    assert imported.plan.quantized >= {"/conv/Conv", "/Relu"}
    assert imported.plan.fused == (("/conv/Conv", "/Relu"),)
    (weight,) = imported.plan.weights
    expected = (np.abs(WEIGHT.astype(np.float64)).max((1, 2, 3)) / 127).astype(np.float32)
    np.testing.assert_array_equal(imported.qparams[weight].scale, expected)


def test_layers_that_are_asked_for_in_fp16_stay_in_float(tmp_path: Path) -> None:
    path = network(tmp_path)
    write(tmp_path, "TRT-8600-EntropyCalibration2\nimages: 3c00f9f4\n/Relu_output_0: 3d000000\n")
    content = {"format": "bitwright-tensorrt/1", "biases": "float32", "layers": {"/conv/Conv": "fp16"},
               "one_scale": [], "inside": []}  # fmt: skip
    write(tmp_path, json.dumps(content), "net.precisions.json")
    imported = graph_from_onnx(path)
    assert imported.plan is not None
    assert not imported.plan.weights
    assert "/conv/Conv" not in imported.plan.quantized


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net.calib.cache:1: ''; a calibration cache begins like TRT-8600-EntropyCalibration2"),
        ("images: 3c00f9f4\n", ":1: 'images: 3c00f9f4'; a calibration cache begins"),
        ("TRT-8600-EntropyCalibration2\nimages 3c00f9f4\n", ":2: 'images 3c00f9f4'; expected `tensor: 3c00f9f4`"),
        ("TRT-8600-EntropyCalibration2\nimages: 3c00f9f4f\n", ":2: 'images: 3c00f9f4f'; expected"),
        ("TRT-8600-EntropyCalibration2\nimages: 7fc00000\n", ":2: tensor 'images' has the scale nan; expected"),
        ("TRT-8600-EntropyCalibration2\nimages: bf800000\n", ":2: tensor 'images' has the scale -1.0; expected"),
        ("TRT-8600-EntropyCalibration2\nimages: 1\nimages: 2\n", ":3: tensor 'images' stands there twice"),
        ("TRT-8600-EntropyCalibration2\nimage: 3c00f9f4\n", "tensor 'image' is no value of the ONNX file beside it "
         "(did you mean 'images'?)"),
    ],
)  # fmt: skip
def test_damaged_caches_are_named_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    path = network(tmp_path)
    write(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(message)):
        graph_from_onnx(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "net.precisions.json: Expecting property name"),
        ("[]", "net.precisions.json: list indices must be integers"),
        ('{"format": "other"}', "net.precisions.json: format = 'other'; allowed: 'bitwright-tensorrt/1'"),
        ('{"format": "bitwright-tensorrt/1"}', "net.precisions.json: one_scale is missing; export the network again"),
    ],
)
def test_damaged_precisions_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = network(tmp_path)
    write(tmp_path, "TRT-8600-EntropyCalibration2\nimages: 3c00f9f4\n")
    write(tmp_path, text, "net.precisions.json")
    with pytest.raises(InputError, match=re.escape(message)):
        graph_from_onnx(path)
