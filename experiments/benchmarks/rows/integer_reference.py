"""The integer reference against ONNX Runtime's quantized operators, one by one, on 2,000 random cases each."""

from __future__ import annotations

from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.ort_kernels import OPERATORS
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "integer_reference"
CASES = 2000
SEED = 1_000_000  # beyond those that the tests draw


def run(bench: Bench) -> list[Record]:
    """Codes unlike the runtime's."""
    table: list[dict[str, Any]] = []
    for name, operator in OPERATORS.items():
        unlike = codes = 0
        for seed in range(SEED, SEED + CASES):
            found, expected = operator(seed)
            unlike += int((found != expected).sum())
            codes += found.size
        table.append({"operator": name, "cases": CASES, "codes": codes, "unlike": unlike})
    return [
        record(
            f"{ROW}.onnxruntime",
            area="parity",
            value=float(sum(line["unlike"] for line in table)),
            unit="codes",
            n=CASES * len(table),
            reach=Reach("=", 0.0),
            table=table,
        )
    ]
