from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from bitwright.experiments.benchmarks.latency.networks.detectors import CrossStageDetector
from bitwright.experiments.benchmarks.latency.networks.small import residual32, separable32
from bitwright.experiments.benchmarks.latency.networks.tokens import encoder
from bitwright.hw_constraints.kernels import split
from bitwright.hw_constraints.predict.planned_model import float_model, planned_model
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme

SCHEME = load_target("x86-vnni").scheme()
NETWORKS = {
    "gated": (residual32(8, 1, True), (1, 3, 32, 32)),
    "separable": (separable32(8, 1, 5, "hardswish"), (1, 3, 32, 32)),
    "joined": (CrossStageDetector(4, 1, "silu"), (1, 3, 64, 64)),
    "tokens": (encoder(32, 1, 2), (1, 16, 64)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32.onnx and int8.onnx, calibrated on random numbers."""
    network, shape = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    quantized = quantize(capture(network.eval(), (torch.randn(shape),)), SCHEME, [(torch.randn(shape),)])
    export_float(quantized.captured.graph, folder / "float32.onnx")
    export_onnx_qdq(quantized, folder / "int8.onnx")
    return folder


def _nodes(model: onnx.ModelProto) -> list[tuple[str, list[str], list[str]]]:
    return sorted((node.op_type, list(node.input), list(node.output)) for node in model.graph.node)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {each.name: (each.data_type, tuple(each.dims)) for each in model.graph.initializer}


def test_it_is_the_file_that_calibration_and_export_would_write(exported: Path) -> None:
    graph = graph_from_onnx(exported / "float32.onnx").graph
    planned, written = planned_model(graph, plan(graph, SCHEME)), onnx.load(exported / "int8.onnx")
    assert _nodes(planned) == _nodes(written)
    assert _shapes(planned) == _shapes(written)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_its_kernels_are_those_of_the_written_file(exported: Path, runtime: str) -> None:
    graph = graph_from_onnx(exported / "float32.onnx").graph
    for model, name in ((planned_model(graph, plan(graph, SCHEME)), "int8"), (float_model(graph), "float32")):
        found = [placed.kernel for placed in split(model, runtime).kernels]
        assert found == [placed.kernel for placed in split(exported / f"{name}.onnx", runtime).kernels]


def test_large_constants_have_no_values(exported: Path) -> None:
    graph = graph_from_onnx(exported / "float32.onnx").graph
    model = planned_model(graph, plan(graph, SCHEME))
    large = [each for each in model.graph.initializer if each.name.endswith("/codes") and math.prod(each.dims) > 64]
    assert large and not any(each.raw_data or each.float_data or each.int32_data for each in large)


def test_formats_without_kernels_are_refused() -> None:
    wide = QParamsSpec(format=FORMATS["int16"], symmetric=True)
    scheme = QuantScheme(name="wide", activations=wide, weights=wide, quantized_operators=frozenset({"linear"}))
    graph = capture(nn.Linear(4, 4).eval(), (torch.randn(1, 4),)).graph
    with pytest.raises(InputError, match="format 'int16': kernels are known for integers of up to 8 bits"):
        planned_model(graph, plan(graph, scheme))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"granularity": Granularity.PER_BLOCK, "block_size": 32}, "granularity = 'per_block'"),
        ({"dynamic": True}, "dynamic = true"),
    ],
)
def test_scales_of_blocks_and_scales_that_follow_the_data_are_refused(changed: dict[str, Any], said: str) -> None:
    network, shape = NETWORKS["gated"]
    graph = capture(network.eval(), (torch.randn(shape),)).graph
    decided = plan(graph, SCHEME)
    of_weights = "block_size" in changed
    ref, spec = next(iter((decided.weights if of_weights else decided.activations).items()))
    field = "weights" if of_weights else "activations"
    specs = {**getattr(decided, field), ref: replace(spec, **changed)}
    with pytest.raises(InputError, match=f"{said}; kernels are known for static scales"):
        planned_model(graph, replace(decided, **{field: specs}))
