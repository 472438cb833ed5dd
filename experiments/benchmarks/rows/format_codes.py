"""Every small format bit for bit as its documents define it, on 10^7 values, and again in an exported file.

The values cover the format's whole range, half of them exactly on a tie or on a value of the format, subnormals among
them. Files run in ONNX Runtime, or in ONNX's reference evaluator where ONNX Runtime lacks the type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.format_definitions import (
    Values,
    integer,
    integer_groups,
    microscaled,
    nvfp4,
    scaled_float,
)
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.backends import get_backend
from bitwright.quant.capture import capture
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.plan import plan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind
from bitwright.quant.weights import choose_weight_qparams

ROW = "format_codes"
COLUMNS = 512
CHUNK_ROWS = 2048
CHUNKS = 10
EXPORTED_ROWS = 512
SCALE = 0.0173


@dataclass(frozen=True, kw_only=True)
class Case:
    """A format, its definition, and the evaluator that knows it in a file; None where ONNX has no such type."""

    name: str
    spec: QParamsSpec
    definition: Callable[[Values], Values]
    evaluator: str | None

    @property
    def lowest_exponent(self) -> int:
        """Values are drawn from here on: below the format's smallest number at the scale that is used."""
        fmt = self.spec.format
        return fmt.min_exponent - fmt.mantissa_bits - 9 if isinstance(fmt, FloatFormat) else -9


def cases() -> list[Case]:
    """One scale, groups, and the scales that the data choose."""

    def case(name: str, fmt: str, definition: Callable[[Values], Values], evaluator: str | None, **more: Any) -> Case:
        spec = QParamsSpec(format=FORMATS[fmt], symmetric=True, **more)
        return Case(name=name, spec=spec, definition=definition, evaluator=evaluator)

    def blocks(size: int, kind: ScaleKind) -> dict[str, Any]:
        return {
            "granularity": Granularity.PER_BLOCK,
            "block_size": size,
            "scale_kind": kind,
            "dynamic": kind is ScaleKind.E8M0,
        }

    floats = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
    micro = {"float8_e4m3fn": "MXFP8 E4M3", "float8_e5m2": "MXFP8 E5M2", "float6_e2m3fn": "MXFP6 E2M3"}
    micro |= {"float6_e3m2fn": "MXFP6 E3M2", "float4_e2m1fn": "MXFP4", "int8": "MXINT8"}
    evaluators = {"float6_e2m3fn": None, "float6_e3m2fn": None, "float4_e2m1fn": "reference"}
    return [
        *(case(name, name, scaled_float(name, SCALE), "onnxruntime") for name in floats),
        case("int4", "int4", integer(4, SCALE), "onnxruntime"),
        case("int4 g128", "int4", integer_groups(4, 128), "onnxruntime", **blocks(128, ScaleKind.FLOAT32)),
        *(
            case(title, name, microscaled(name), evaluators.get(name, "onnxruntime"), **blocks(32, ScaleKind.E8M0))
            for name, title in micro.items()
        ),
        case("NVFP4", "float4_e2m1fn", nvfp4, "reference", **blocks(16, ScaleKind.FLOAT8_E4M3)),
    ]


def run(bench: Bench) -> list[Record]:
    """Values unlike the definition, in the simulation and in files."""
    table = []
    for case in cases():
        wrong = sum(_unlike(case.definition(values), _simulated(case, values)) for values in drawn(case))
        line: dict[str, Any] = {"format": case.name, "values": CHUNKS * CHUNK_ROWS * COLUMNS, "unlike": wrong}
        if case.evaluator:
            (values,) = drawn(case, rows=EXPORTED_ROWS, chunks=1)
            found = _exported(case, values, bench.ours / ROW / f"{case.name}.onnx")
            line |= {"in a file": values.size, "unlike there": _unlike(case.definition(values), found)}
        table.append({**line, "run by": case.evaluator or "ONNX has no such type"})
    common: dict[str, Any] = {"area": "quant", "unit": "values", "reach": Reach("=", 0.0), "table": table}
    return [
        record(f"{ROW}.simulated", value=sum(t["unlike"] for t in table), n=sum(t["values"] for t in table), **common),
        record(
            f"{ROW}.exported",
            value=sum(t.get("unlike there", 0) for t in table),
            n=sum(t.get("in a file", 0) for t in table),
            **common,
        ),
    ]


def drawn(case: Case, *, rows: int = CHUNK_ROWS, chunks: int = CHUNKS) -> Iterator[Values]:
    """Random values, half of them cut off at few bits of mantissa: values of the format and the ties between them."""
    generator = np.random.default_rng(0)
    fmt = case.spec.format
    digits = fmt.mantissa_bits + 1 if isinstance(fmt, FloatFormat) else fmt.bits
    cut = np.uint32((0xFFFFFFFF << (23 - digits)) & 0xFFFFFFFF)
    for _ in range(chunks):
        exponents = 127 + generator.integers(case.lowest_exponent, 12, (rows, COLUMNS), dtype=np.int64)
        bits = generator.integers(0, 1 << 32, (rows, COLUMNS), dtype=np.uint32) & np.uint32(0x807FFFFF)
        bits |= np.maximum(exponents, 1).astype(np.uint32) << np.uint32(23)
        bits[rows // 2 :] &= cut
        values = bits.view(np.float32)
        # Times the scale, a tie is a tie again wherever the product is exact or the division undoes its rounding.
        yield values if case.spec.block_size else (values * np.float32(SCALE)).astype(np.float32)


def _unlike(expected: Values, found: Values) -> int:
    return int((expected != found).sum())


def _qparams(case: Case, values: torch.Tensor) -> QParams:
    if case.spec.dynamic:
        return DynamicQParams(spec=case.spec, axis=1).of(values)
    if case.spec.block_size:
        return choose_weight_qparams(values, case.spec, 1)
    return QParams(case.spec, torch.tensor(SCALE), torch.tensor(0.0))


def _simulated(case: Case, values: Values) -> Values:
    tensor = torch.from_numpy(values)
    return fake_quantize(tensor, _qparams(case, tensor)).numpy()


class _Sum(nn.Module):
    """Reads its argument and a parameter; what is quantized of them is seen in the file's DequantizeLinear."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.values)


def _exported(case: Case, values: Values, file: Path) -> Values:
    """The values as a weight in a file, or as its input where the scale follows the data."""
    dynamic, tensor = case.spec.dynamic, torch.from_numpy(values)
    model = _Sum(torch.zeros(2, COLUMNS) if dynamic else tensor)
    x = tensor if dynamic else torch.zeros(1, COLUMNS)
    captured = capture(model, (x,))
    plain = QParamsSpec(format=FORMATS["float16"], symmetric=True)
    scheme = QuantScheme(
        name=ROW,
        activations=case.spec if dynamic else plain,
        weights=plain if dynamic else case.spec,
        quantized_operators=frozenset({"linear"}),
    )
    decided = plan(captured.graph, scheme)
    (activation,), (weight,) = decided.activations, decided.weights
    one = QParams(plain, torch.tensor(1.0), torch.tensor(0.0))
    quantized = QuantizedModel(
        captured=captured,
        plan=decided,
        qparams={weight: one} if dynamic else {activation: one, weight: _qparams(case, tensor)},
        dynamic={activation: DynamicQParams(spec=case.spec, axis=1)} if dynamic else {},
    )
    stored = onnx.load(export_onnx_qdq(quantized, file))
    seen = f"{next(iter(stored.graph.input)).name}/dq" if dynamic else f"{weight}/dq"
    stored.graph.output.append(onnx.helper.make_tensor_value_info(seen, onnx.TensorProto.FLOAT, values.shape))
    inputs = {stored.graph.input[0].name: x.numpy()}
    if case.evaluator == "reference":
        found: Values = ReferenceEvaluator(stored).run([seen], inputs)[0]
        return found
    return get_backend("onnxruntime").load(stored.SerializeToString()).run(inputs)[seen]
