"""The integer reference against the operators of ONNX Runtime and LiteRT, one by one, on 2,000 random cases each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.litert_kernels import OPERATORS as LITERT
from bitwright.experiments.benchmarks.ort_kernels import OPERATORS as ONNX_RUNTIME
from bitwright.experiments.benchmarks.ort_kernels import Case
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "integer_reference"
CASES = 2000
SEED = 1_000_000  # beyond those that the tests draw


def run(bench: Bench) -> list[Record]:
    """Codes unlike each runtime's."""
    return [_compared("onnxruntime", ONNX_RUNTIME), _compared("litert", LITERT)]


def _compared(runtime: str, operators: Mapping[str, Callable[[int], Case]]) -> Record:
    table: list[dict[str, Any]] = []
    for name, operator in operators.items():
        unlike = codes = 0
        for seed in range(SEED, SEED + CASES):
            found, expected = operator(seed)
            unlike += int((found != expected).sum())
            codes += found.size
        table.append({"operator": name, "cases": CASES, "codes": codes, "unlike": unlike})
    return record(
        f"{ROW}.{runtime}",
        area="parity",
        value=float(sum(line["unlike"] for line in table)),
        unit="codes",
        n=CASES * len(table),
        reach=Reach("=", 0.0),
        table=table,
    )
