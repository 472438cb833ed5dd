"""What every exporter keeps: what comes back equals what went out. A new one is tested by existing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import EXPORTERS, Exporter, export_as
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.to_captured import to_quantized
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme

Example = Any  # of conftest.py
# What all of them can say: symmetric int8, one scale for each output channel of a weight.
INT8 = QParamsSpec(format=FORMATS["int8"], symmetric=True)
CHANNELS = replace(INT8, granularity=Granularity.PER_CHANNEL)

every = pytest.mark.parametrize("name", EXPORTERS.names())
# Files of other kinds than ONNX are read back by their runtimes: each exporter's own tests.
of_onnx = pytest.mark.parametrize(
    "name", [name for name in EXPORTERS.names() if EXPORTERS.load(name).suffix == ".onnx"]
)


@pytest.fixture
def scheme(make_scheme: Any) -> QuantScheme:
    made: QuantScheme = make_scheme("int8", "int8", weights=CHANNELS, bias=BiasKind.FLOAT32)
    return replace(made, name="what every exporter can say")


@every
def test_it_writes_a_network_and_what_belongs_to_it(
    name: str, example: Example, scheme: QuantScheme, tmp_path: Path
) -> None:
    suffix, quantized = EXPORTERS.load(name).suffix, example.quantized(scheme)
    path = (tmp_path / "here" / "net").with_suffix(suffix)
    try:
        files = export_as(quantized, path, name)
    except InputError as refusal:
        operators = {node.op for node in quantized.captured.graph.nodes}
        assert suffix != ".onnx" and any(op in str(refusal) for op in operators)
        assert not list(tmp_path.iterdir())
        return
    assert files[0] == path
    assert all(file.is_file() and file.name.startswith("net.") for file in files)
    assert set(files) <= set((tmp_path / "here").iterdir())
    if suffix == ".onnx":
        onnx.checker.check_model(str(files[0]), full_check=True)


@of_onnx
def test_plan_and_qparams_come_back(name: str, example: Example, scheme: QuantScheme, tmp_path: Path) -> None:
    quantized: QuantizedModel = example.quantized(scheme)
    imported = graph_from_onnx(export_as(quantized, tmp_path / "net.onnx", name)[0])
    plan, graph = imported.plan_by(quantized.plan.scheme), imported.graph
    read = {ref for node in graph.nodes for ref in node.tensors} | set(graph.outputs)
    assert set(plan.activations) == {ref for ref in quantized.plan.activations if ref in read}
    assert set(plan.weights) == set(quantized.plan.weights)
    assert plan.quantized == quantized.plan.quantized
    assert set(plan.fused) == set(quantized.plan.fused)
    for ref in (*plan.activations, *plan.weights):
        known, expected = imported.qparams[ref], quantized.qparams[ref]
        assert (known.spec.format, known.axis) == (expected.spec.format, expected.axis)
        np.testing.assert_array_equal(known.scale, expected.scale.numpy())
        np.testing.assert_array_equal(known.zero_point, expected.zero_point.numpy())


@of_onnx
def test_the_network_that_comes_back_computes_the_same(
    name: str, example: Example, scheme: QuantScheme, tmp_path: Path
) -> None:
    quantized: QuantizedModel = example.quantized(scheme)
    again, _ = to_quantized(graph_from_onnx(export_as(quantized, tmp_path / "net.onnx", name)[0]))
    # Runtimes of encodings have int32 biases, whether the plan asks for them or not.
    assert set(again.plan.biases) >= set(quantized.plan.biases)
    quantized = replace(quantized, plan=replace(quantized.plan, biases=again.plan.biases))
    with torch.no_grad():
        expected = quantized.captured.outputs(quantized.run(*example.args))
        actual = again.captured.outputs(again.run(*example.args))
    for ours, theirs in zip(actual, expected, strict=True):
        # Operators in float may be spelled otherwise, and then round a tie the other way: rare, and one step.
        assert (ours == theirs).float().mean() > 0.95 or torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every
def test_it_says_what_it_writes_and_takes_its_own_settings_alone(
    name: str, example: Example, scheme: QuantScheme, tmp_path: Path
) -> None:
    exporter: Exporter = EXPORTERS.load(name)
    assert exporter.title and all(exporter.settings.values())
    path = (tmp_path / "net").with_suffix(exporter.suffix)
    with pytest.raises(InputError, match=f"unknown setting of exporter '{name}' 'no such'"):
        export_as(example.quantized(scheme), path, name, **{"no such": "1"})
    assert not list(tmp_path.iterdir())
