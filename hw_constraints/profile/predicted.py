"""Predicted times beside measured layers: from a table of measured kernels (`predict`)."""

from __future__ import annotations

from pathlib import Path

from bitwright.hw_constraints.kernels import Family
from bitwright.hw_constraints.predict.from_table import load_predictor
from bitwright.hw_constraints.predict.prediction import NetworkPrediction
from bitwright.hw_constraints.profile.expected import Expected, ExpectedOp
from bitwright.hw_constraints.table import TableKey

_CONVERSIONS = frozenset({Family.QUANTIZE, Family.DEQUANTIZE, Family.REORDER})


def predicted(path: Path, runtime: str, table: Path, *, threads: int) -> Expected:
    """What a table's predictor expects of a file.

    Args:
        path: an ONNX file.
        runtime: a backend's name.
        table: of this machine, runtime, version and thread count.
        threads: of the runtime.

    Raises:
        InputError: the table is damaged, empty, or holds for something else.
    """
    predictor = load_predictor(table, key=TableKey.here(runtime, threads))
    return expected_of(predictor.network(predictor.split(path)))


def expected_of(found: NetworkPrediction) -> Expected:
    """A prediction as expected times: each kernel computes layers under the names of their values.

    Kernels that convert a value carry its name as well, and are no part of its layer.
    """
    interval = f"the interval of the whole at {100 * found.level:.0f} % is {found.low:.0f} to {found.high:.0f} µs"
    return Expected(
        us=found.us,
        ops=tuple(
            ExpectedOp(us=layer.us, keys=frozenset(() if layer.kernel.family in _CONVERSIONS else layer.layers))
            for layer in found.layers
        ),
        by=found.where,
        notes=(interval, *found.doubts),
    )
