"""Measured latency: candidates interleaved in one process, threads pinned, medians with spread, paired ratios."""

from bitwright.hw_constraints.measure.files import measure_files, measure_in_subprocess
from bitwright.hw_constraints.measure.interleaving import Latency, Measurement, interleave, measurement_from_json
from bitwright.hw_constraints.measure.statistics import Ratio, paired_ratio

__all__ = [
    "Latency",
    "Measurement",
    "Ratio",
    "interleave",
    "measure_files",
    "measure_in_subprocess",
    "measurement_from_json",
    "paired_ratio",
]
