"""Measures that fit what a result is, and thresholds that follow from number formats.

`measure_outputs` says how far two networks' results lie apart, detections behind their matching. `judge_outputs` says
whether the formats explain it: their errors are drawn (`rounding_draws`, `quantization_draws`) and propagated by the
network itself. `compare_frames` does so frame by frame; `quantized_places` and `moved_places` look at geometry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.quant.parity_measures.frames import FrameDrift, compare_frames
    from bitwright.quant.parity_measures.kinds import guess, kinds_from_words
    from bitwright.quant.parity_measures.measured import Kind, Measured
    from bitwright.quant.parity_measures.noise import (
        Draws,
        frame_rounding_draws,
        quantization_draws,
        rounding_draws,
    )
    from bitwright.quant.parity_measures.outputs import measure_outputs
    from bitwright.quant.parity_measures.places import PlaceFinding, moved_places, quantized_places
    from bitwright.quant.parity_measures.thresholds import Verdict, judge_outputs

__all__ = [
    "Draws",
    "FrameDrift",
    "Kind",
    "Measured",
    "PlaceFinding",
    "Verdict",
    "compare_frames",
    "frame_rounding_draws",
    "guess",
    "judge_outputs",
    "kinds_from_words",
    "measure_outputs",
    "moved_places",
    "quantization_draws",
    "quantized_places",
    "rounding_draws",
]
__getattr__ = lazy_attributes(__name__, __file__)
