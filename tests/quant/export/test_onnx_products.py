"""Linear layers whose weights alone are codes, or whose activations get their scale at run time."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme

REAL = QParamsSpec(format=FORMATS["float32"], symmetric=True)
HALF = QParamsSpec(format=FORMATS["float16"], symmetric=True)
DYNAMIC = QParamsSpec(format=FORMATS["uint8"], symmetric=False, dynamic=True)


def weights(name: str, block: int | None = None, **more: Any) -> QParamsSpec:
    granularity = Granularity.PER_CHANNEL if block is None else Granularity.PER_BLOCK
    return QParamsSpec(
        format=FORMATS[name], granularity=granularity, block_size=block, **{"symmetric": True, **more}
    )  # fmt: skip


FUSED = {"MatMulIntegerToFloat": 2, "DynamicQuantizeMatMul": 1}  # two share their codes, one has its own
CASES = {
    "int4 in groups": (REAL, weights("int4", 32), {"MatMulNBits": 3}),
    "uint4 in groups": (REAL, weights("uint4", 16, symmetric=False), {"MatMulNBits": 3}),
    "int3 under float16": (HALF, weights("int3", 32), {"MatMulNBits": 3}),
    "int8 in groups": (REAL, weights("int8", 32), {"MatMulNBits": 3}),
    "int8 per channel": (REAL, weights("int8"), {"MatMulNBits": 3}),
    "int8 dynamic": (DYNAMIC, weights("int8"), FUSED),
    "int8 dynamic per tensor": (
        DYNAMIC,
        QParamsSpec(format=FORMATS["int8"], symmetric=True),
        FUSED,
    ),
    "int4 dynamic": (DYNAMIC, weights("int4", 32), {}),  # no kernel has both; the values are right
}


class Heads(nn.Module):
    """Two layers that read one tensor, which is also added: its codes have readers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(64, 32), nn.Linear(64, 32, bias=False), nn.Linear(32, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.left(x) * self.right(x))) + x


def made(activations: QParamsSpec, weight: QParamsSpec) -> tuple[QuantizedModel, torch.Tensor]:
    x = torch.randn(2, 5, 64)
    scheme = QuantScheme(
        name="products",
        activations=activations,
        weights=weight,
        bias=BiasKind.FLOAT32,
        quantized_operators=frozenset({"linear"}),
        codes_as_read=True,
    )
    return quantize(capture(Heads().eval(), (x,)), scheme, [x], bias_correction=False), x


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_multiplies_codes_and_gives_the_values_of_the_simulation(name: str, tmp_path: Path) -> None:
    activations, weight, kernels = CASES[name]
    model, x = made(activations, weight)
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    session = get_backend("onnxruntime").load(path, threads=1)
    executed = Counter(node.op for node in session.executed_graph())
    assert {kernel: executed[kernel] for kernel in kernels} == kernels
    (result,) = session.run({session.input_infos[0].name: x.numpy()}).values()
    torch.testing.assert_close(torch.from_numpy(result), model.run(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_layers_come_back_with_their_scales(name: str, tmp_path: Path) -> None:
    model, _ = made(*CASES[name][:2])
    imported = graph_from_onnx(export_onnx_qdq(model, tmp_path / "model.onnx"))
    layers = [node.op for node in imported.graph.nodes if node.op != "to"]  # float16 is a cast there and back
    assert layers == [node.op for node in model.captured.graph.nodes]
    for ref in model.plan.weights:
        (found,) = (each for each in imported.qparams if str(each) == str(ref))
        np.testing.assert_array_equal(imported.qparams[found].scale, model.qparams[ref].scale.numpy())
        rounded = fake_quantize(model.captured.values[model.captured.value_refs[ref]], model.qparams[ref])
        np.testing.assert_array_equal(imported.graph.array(found), rounded.numpy())


def test_codes_that_only_products_read_are_not_turned_back(tmp_path: Path) -> None:
    model, _ = made(*CASES["int8 dynamic"][:2])
    graph = onnx.load(export_onnx_qdq(model, tmp_path / "model.onnx")).graph
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    assert all(set(node.output) & read for node in graph.node)
