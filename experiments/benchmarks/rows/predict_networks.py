"""Latencies of whole networks predicted from a table of kernels, beside what was then measured.

The tables' hashes are committed (`latency/table_hashes.json`) before any of these networks is measured; their families
(`latency/fresh.py`) are none of those of earlier draws (`latency/pool.py`, `latency/unseen.py`,
`latency/compact_draw.py`), on which the predictor was tuned.
Measured by `python -m bitwright.experiments.benchmarks.latency.measured`. nn-Meter (MobiSys 2021) reports ± 10 % for
99 % of networks on its mobile processor, with kernels of the same families in its tables.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.latency.network_files import FORMATS
from bitwright.experiments.benchmarks.latency.predicted import RUNTIMES, Pair, pairs, predictor, tau_within_bands
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.predict.calibration import LeftOut, calibrate_latency
from bitwright.quant.errors import InputError

ROW = "predict_networks"
AREA = "hw_constraints"
_QUERIES = 200


def run(bench: Bench) -> list[Record]:
    """Predicts every drawn network that has been measured."""
    found: list[Pair] = []
    query_ms = []
    for runtime in RUNTIMES:
        by = predictor(runtime)
        here = list(pairs(runtime, by))
        kernels = [placed.kernel for pair in here for placed in pair.split.kernels][:: max(1, 10_000 // _QUERIES)]
        for kernel in kernels[:_QUERIES]:
            start = time.perf_counter()
            by.kernel(kernel)
            query_ms.append(1e3 * (time.perf_counter() - start))
        found += here
    if not found:
        raise InputError("no drawn network has been measured; see experiments/benchmarks/latency/measured.py")
    return _records(found, query_ms)


def _records(found: Sequence[Pair], query_ms: Sequence[float]) -> list[Record]:
    table = [line for runtime in RUNTIMES for fmt in (*FORMATS, "both") for line in _lines(found, runtime, fmt)]
    errors = np.abs([np.expm1(pair.log_error) for pair in found])
    networks, families = ({getattr(pair.measured, name) for pair in found} for name in ("name", "family"))
    bands = [line["τ in bands of 2x"] for line in table if line["format"] != "both"]
    covered, width = _recalibrated(found)

    def figure(name: str, value: Any, unit: str, n: int = len(found), reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area=AREA, value=float(value), unit=unit, n=n, reach=reach, table=table)

    return [
        figure("networks", len(networks), "networks", len(networks), Reach("≥", 60)),
        figure("families", len(families), "families", len(families), Reach("≥", 10)),
        figure("median_error", 100 * np.median(errors), "%", reach=Reach("≤", 4)),
        figure("p90_error", 100 * np.quantile(errors, 0.9), "%", reach=Reach("≤", 10)),
        figure(
            "tau",
            min(bands),
            "Kendall's τ within bands of 2x, the least of runtimes and formats",
            reach=Reach("≥", 0.85),
        ),
        figure(
            "coverage", 100 * np.mean([pair.covered for pair in found]), "% in 90 % intervals", reach=Reach("≥", 87)
        ),
        figure("half_width", 100 * np.median([pair.predicted.half_width for pair in found]), "%", reach=Reach("≤", 10)),
        figure("coverage_by_families", covered, "%, calibrated on the other families' networks", reach=Reach("≥", 87)),
        figure("half_width_by_families", width, "%, calibrated likewise", reach=Reach("≤", 10)),
        figure("pairs", len(found), "networks x formats x runtimes", reach=Reach("≥", 400)),
        figure("query", np.median(query_ms), "ms a kernel", len(query_ms), Reach("≤", 1)),
        figure("prediction", 1e3 * np.median([pair.seconds for pair in found]), "ms a network", reach=Reach("≤", 20)),
    ]


def _lines(found: Sequence[Pair], runtime: str, number_format: str) -> list[dict[str, Any]]:
    here = [
        pair
        for pair in found
        if pair.measured.runtime == runtime and number_format in ("both", pair.measured.number_format)
    ]
    if not here:
        return []
    errors = np.array([np.expm1(pair.log_error) for pair in here])
    return [
        {
            "runtime": runtime,
            "format": number_format,
            "networks": len({pair.measured.name for pair in here}),
            "median error %": 100 * float(np.median(np.abs(errors))),
            "p90 error %": 100 * float(np.quantile(np.abs(errors), 0.9)),
            "bias %": 100 * float(np.median(errors)),
            "within 10 %": 100 * float(np.mean(np.abs(errors) <= 0.1)),
            "τ in bands of 2x": tau_within_bands([(pair.us, pair.predicted.us) for pair in here]),
            "covered %": 100 * float(np.mean([pair.covered for pair in here])),
            "half width %": 100 * float(np.median([pair.predicted.half_width for pair in here])),
        }
    ]


def _recalibrated(found: Sequence[Pair]) -> tuple[float, float]:
    """Coverage and median half-width in per cent, of intervals calibrated on the networks of all other families."""
    covered, widths = [], []
    for runtime in RUNTIMES:
        here = [pair for pair in found if pair.measured.runtime == runtime]
        for family in {pair.measured.family for pair in here}:
            rest = [
                LeftOut(
                    name=pair.measured.family,
                    number_format=pair.measured.number_format,
                    log_error=-pair.log_error,
                    spread=pair.predicted.spread,
                )
                for pair in here
                if pair.measured.family != family
            ]
            intervals = calibrate_latency(rest, 0.9)
            for pair in (each for each in here if each.measured.family == family):
                low, high = intervals.interval(float(np.log(pair.predicted.us)), pair.predicted.spread)
                covered.append(low <= pair.us <= high)
                widths.append((high - low) / 2 / pair.predicted.us)
    return 100 * float(np.mean(covered)), 100 * float(np.median(widths))
