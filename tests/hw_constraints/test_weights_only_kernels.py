"""What the targets for linear layers alone claim of the runtimes, which compute the values of the simulation."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.base import Session
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec, QuantScheme

WEIGHTS = load_target("x86-weights-only").numerics.weights
COMPRESSED = {"uint4": "u4", "int4": "i4", "int8": "i8"}  # OpenVINO's names of what a layer's weights are kept in
X = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 32, bias=False)).eval()


def quantized(network: nn.Module, scheme: QuantScheme) -> QuantizedModel:
    return quantize(capture(network, (X,)), scheme, [X], bias_correction=False)


def spelled(spec: QParamsSpec) -> str:
    return f"{spec.format.name} {spec.block_size or 'per channel'}"


def values(session: Session) -> npt.NDArray[Any]:
    (result,) = session.run({session.input_infos[0].name: X.numpy()}).values()
    return result


def executed(session: Session) -> Counter[str]:
    return Counter(node.op for node in session.executed_graph())


@pytest.mark.parametrize("weights", WEIGHTS, ids=spelled)
def test_weights_stay_codes_and_activations_float(weights: QParamsSpec, network: nn.Module, tmp_path: Path) -> None:
    model = quantized(network, replace(load_target("x86-weights-only").scheme(), weights=weights))
    path, expected = export_onnx_qdq(model, tmp_path / "model.onnx"), model.run(X).numpy()
    ours = get_backend("onnxruntime").load(path, threads=1)
    assert executed(ours)["MatMulNBits"] == 2
    np.testing.assert_allclose(values(ours), expected, rtol=1e-5, atol=1e-5)
    openvino = pytest.importorskip("openvino")
    theirs = get_backend("openvino").load(path, threads=1)
    np.testing.assert_allclose(values(theirs), expected, rtol=1e-5, atol=1e-5)
    compiled = openvino.Core().compile_model(path, "CPU", theirs.settings)
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [each for each in facts if each["layerType"].astype(str) == "FullyConnected"]
    assert [each["runtimePrecision"].astype(str) for each in layers] == [COMPRESSED[weights.format.name]] * 2


def test_linear_layers_with_dynamic_scales_multiply_codes(network: nn.Module, tmp_path: Path) -> None:
    model = quantized(network, load_target("x86-dynamic").scheme())
    session = get_backend("onnxruntime").load(export_onnx_qdq(model, tmp_path / "model.onnx"), threads=1)
    assert sum(executed(session)[name] for name in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")) == 2
    np.testing.assert_allclose(values(session), model.run(X).numpy(), rtol=1e-5, atol=1e-5)


def test_a_group_that_is_no_power_of_two_is_not_fused_and_so_not_permitted(network: nn.Module, tmp_path: Path) -> None:
    scheme = load_target("x86-weights-only").scheme()
    odd = replace(scheme, weights=replace(scheme.weights, block_size=48))
    path = export_onnx_qdq(quantized(network, odd), tmp_path / "model.onnx")
    assert executed(get_backend("onnxruntime").load(path, threads=1))["MatMulNBits"] == 0
    assert 48 not in {each.block_size for each in WEIGHTS}
