"""Encodings: what comes back equals what went out, in three layouts; what they cannot say is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.to_captured import to_quantized
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind

Example = Any  # of conftest.py
VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
CHANNELS = {"granularity": Granularity.PER_CHANNEL}
UINT8 = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
INT8 = QParamsSpec(format=FORMATS["int8"], symmetric=True, **CHANNELS)


def in_blocks(name: str, size: int, **more: Any) -> QParamsSpec:
    settings = {"symmetric": True, "granularity": Granularity.PER_BLOCK, "block_size": size, **more}
    return QParamsSpec(format=FORMATS[name], **settings)


def small(activations: QParamsSpec = UINT8, weights: QParamsSpec = INT8) -> tuple[QuantizedModel, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 64))
    x = torch.randn(2, 3, 6, 6)
    scheme = QuantScheme(
        name="small",
        activations=activations,
        weights=weights,
        quantized_operators=frozenset({"conv2d", "linear"}),
        fused_patterns=(("conv2d", "relu"),),
        shared_qparams_operators=frozenset({"flatten", "view", "reshape"}),
    )
    return quantize(capture(model.eval(), (x,)), scheme, [(x,)], bias_correction=False), x


def assert_same(quantized: QuantizedModel, path: Path) -> None:
    """The plan, and the real numbers of each tensor's codes; signed codes with a zero point come back unsigned."""
    imported = graph_from_onnx(path)
    plan = imported.plan_by(quantized.plan.scheme)
    graph = imported.graph
    read = {ref for node in graph.nodes for ref in node.tensors} | set(graph.outputs)
    assert set(plan.activations) == {ref for ref in quantized.plan.activations if ref in read}
    assert set(plan.weights) == set(quantized.plan.weights)
    assert plan.quantized == quantized.plan.quantized
    assert {name: each.bias for name, each in plan.biases.items()} == {
        name: each.bias for name, each in quantized.plan.biases.items()
    }
    for ref in (*plan.activations, *plan.weights):
        known, expected = imported.qparams[ref], quantized.qparams[ref]
        assert known.spec.format.bits == expected.spec.format.bits
        assert known.axis == expected.axis
        np.testing.assert_array_equal(known.scale, expected.scale.numpy())
        shift = known.spec.code_range[0] - expected.spec.format.code_min
        np.testing.assert_array_equal(known.zero_point, expected.zero_point.numpy() + shift)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("formats", [("uint8", "int8"), ("int8", "int8"), ("uint16", "int8"), ("uint8", "int4")])
def test_plan_and_qparams_come_back(
    example: Example, formats: tuple[str, str], version: str, make_scheme: Any, tmp_path: Path
) -> None:
    quantized = example.quantized(make_scheme(*formats))
    path, beside = export_as(quantized, tmp_path / "model.onnx", "encodings_json", version=version)
    onnx.checker.check_model(str(path))
    assert not any("Quantize" in node.op_type for node in onnx.load(path).graph.node)
    assert json.loads(beside.read_text())["version"] == version
    assert_same(quantized, path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        (UINT8, INT8),
        (QParamsSpec(format=FORMATS["int8"], symmetric=False), INT8),
        (QParamsSpec(format=FORMATS["int16"], symmetric=True), replace(INT8, scale_kind=ScaleKind.POWER_OF_TWO)),
        (UINT8, replace(INT8, narrow_range=True)),  # no value of a weight rounds to -128
        (UINT8, replace(INT8, symmetric=False)),
    ],
    ids=str,
)
def test_the_network_that_comes_back_computes_the_same_bit_for_bit(
    activations: QParamsSpec, weights: QParamsSpec, version: str, tmp_path: Path
) -> None:
    quantized, x = small(activations, weights)
    path, _ = export_as(quantized, tmp_path / "model.onnx", "encodings_json", version=version)
    again, _ = to_quantized(graph_from_onnx(path))
    with torch.no_grad():
        torch.testing.assert_close(again.run(x), quantized.run(x), rtol=0, atol=0)


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_blocks_come_back(version: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 64)
    scheme = QuantScheme(
        name="blocks", activations=UINT8, weights=in_blocks("int4", 32), quantized_operators=frozenset({"linear"})
    )
    quantized = quantize(capture(nn.Linear(64, 24).eval(), (x,)), scheme, [(x,)], bias_correction=False)
    path, _ = export_as(quantized, tmp_path / "model.onnx", "encodings_json", version=version)
    assert_same(quantized, path)
    imported = graph_from_onnx(path)
    assert imported.plan is not None
    assert [spec.block_size for spec in imported.plan.weights.values()] == [32]


def test_offsets_count_from_the_smallest_code(tmp_path: Path) -> None:
    """By hand: `value = (code + offset) * scale` with codes from 0 to 255."""
    quantized, _ = small()
    _, beside = export_as(quantized, tmp_path / "model.onnx", "encodings_json", version="0.6.1")
    content = json.loads(beside.read_text())
    for ref, qparams in quantized.qparams.items():
        low, high = (bound.reshape(-1).tolist() for bound in qparams.range)
        section = "param_encodings" if ref in quantized.plan.weights else "activation_encodings"
        entries = content[section][str(ref).removeprefix("$")]
        assert [each["offset"] * each["scale"] for each in entries] == pytest.approx(low)
        assert [(each["offset"] + 255) * each["scale"] for each in entries] == pytest.approx(high)
        assert {each["is_symmetric"] for each in entries} == {str(ref in quantized.plan.weights)}
    assert {each["offset"] for each in content["param_encodings"]["0.weight"]} == {-128}


@pytest.mark.parametrize(
    ("activations", "weights", "version", "message"),
    [
        (replace(UINT8, dynamic=True), INT8, "1.0.0", r"input \$input of conv2d '0'.*: its scale follows the data"),
        (UINT8, replace(INT8, format=FORMATS["int2"]), "1.0.0", "weight 0.weight of conv2d '0'.*: format int2; "
         "encodings 1.0.0 hold integers of 4 to 32 bits and float16"),
        (UINT8, replace(INT8, format=FORMATS["int6"]), "2.0.0", "format int6; encodings 2.0.0 hold integers of "
         "2, 4, 8, 16, 32 bits"),
        (UINT8, replace(INT8, format=FORMATS["float8_e4m3fn"]), "0.6.1", "format float8_e4m3fn; encodings 0.6.1"),
        (QParamsSpec(format=FORMATS["int8"], symmetric=True, narrow_range=True), INT8, "1.0.0",
         "narrow_range, which encodings cannot say; quantize it with the whole range"),
        (UINT8, in_blocks("int4", 16), "0.6.1", "a scale for each block; encodings 0.6.1 have none"),
        (UINT8, in_blocks("int4", 16), "1.0.0", r"weight 0.weight of conv2d '0'.*: blocks of 16 in shape "
         r"\[8, 3, 3, 3\]; encodings 1.0.0 have whole ones of matrices: write version 2.0.0"),
    ],
)  # fmt: skip
def test_what_encodings_cannot_say_is_refused_by_name(
    activations: QParamsSpec, weights: QParamsSpec, version: str, message: str, tmp_path: Path
) -> None:
    quantized, _ = small(activations, weights)
    with pytest.raises(InputError, match=message):
        export_as(quantized, tmp_path / "model.onnx", "encodings_json", version=version)
    assert not list(tmp_path.iterdir())


def test_settings_and_paths_are_checked(tmp_path: Path) -> None:
    quantized, _ = small()
    with pytest.raises(InputError, match=r"^version = '3'; encodings have: 0.6.1, 1.0.0, 2.0.0$"):
        export_as(quantized, tmp_path / "model.onnx", "encodings_json", version="3")
    with pytest.raises(InputError, match=r"unknown setting of exporter 'encodings_json' 'versoin'.*did you mean"):
        export_as(quantized, tmp_path / "model.onnx", "encodings_json", versoin="1.0.0")
    with pytest.raises(InputError, match="unknown exporter 'aimet'; there are: "):
        export_as(quantized, tmp_path / "model.onnx", "aimet")
    with pytest.raises(InputError, match=r"AIMET encodings is written as NAME\.onnx"):
        export_as(quantized, tmp_path / "model.json", "encodings_json")
