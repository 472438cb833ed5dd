"""What would help a tensor that loses much, by what was measured of it and by nothing else.

A cause is named when it makes more than half of the noise: clipping, one loud channel (half of the noise is 3 dB), or
the weights of the layer that makes it.
"""

from __future__ import annotations

import math

from bitwright.experiments.recipe import Recipe
from bitwright.hw_constraints.target import Target
from bitwright.quant.channel_spaces import channel_spaces
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.layer_report import TensorReport
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.sqnr import EXACT_DB

_HALF = 0.5
_HALF_DB = 10.0 * math.log10(2.0)
_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "baddbmm"})


class Adviser:
    """Knows what a recipe already does, what the target permits, and how the network is connected."""

    def __init__(self, recipe: Recipe, target: Target, quantized: QuantizedModel) -> None:
        self.asked, self.target, self.plan = recipe.quantize, target, quantized.plan
        self.graph: Graph = quantized.captured.graph
        self.movable = frozenset(ref for space in channel_spaces(self.graph) for ref in space.tensors)

    def on(self, report: TensorReport) -> str:
        """The cause and what to do about it, in a sentence; empty where nothing is lost or nothing stands out."""
        if report.own_sqnr_db >= EXACT_DB:
            return ""
        return self._weight(report) if report.is_weight else self._activation(report)

    def _activation(self, report: TensorReport) -> str:
        spec = self.plan.activations[report.ref]
        if report.clip_noise > _HALF:
            return self._saturates(report, spec)
        if report.weight_noise > _HALF:
            cause = f"{100 * report.weight_noise:.0f} % of its own noise comes from the rounded weights of its layer"
            return f"{cause}: {self._finer_weights()}"
        peaks = report.peaks
        if peaks is not None and peaks.own_scales_gain_db >= _HALF_DB and not spec.dynamic:
            cause = (
                f"channel {peaks.loudest} reaches {peaks.loudness:.3g} times as far as the median one, which costs "
                f"{peaks.own_scales_gain_db:.1f} dB"
            )
            return f"{cause}: {self._quieter_channel(report.ref)}"
        return ""

    def _saturates(self, report: TensorReport, spec: QParamsSpec) -> str:
        cause = f"{100 * report.clip_noise:.0f} % of its rounding's noise is made by the values that are cut off"
        wider = "calibrate.observer: min_max keeps them, " if spec.observer != "min_max" else ""
        return f"{cause}: {wider}more samples that show such values widen its range"

    def _finer_weights(self) -> str:
        if self.asked.rounding is None:
            return "quantize.rounding: gptq rounds them in view of their inputs"
        if not self.asked.equalization:
            return "quantize.equalization: true brings their channels to like ranges"
        return f"more bits for them, or {self._more_bits()}"

    def _quieter_channel(self, ref: TensorRef) -> str:
        if ref in self.movable and not self.asked.equalization:
            return "quantize.equalization: true scales it into the next layer's weights"
        readers = self.graph.consumers[ref]
        if readers and all(node.op in _PRODUCTS for node in readers):
            return "quantize.prepare: [smoothquant] scales it into the weights that read it"
        return self._more_bits()

    def _more_bits(self) -> str:
        if any(each.format.name == "int16" for each in self.target.numerics.activations):
            return "an override with activations: {format: int16}"
        return "an override with keep_float: true"

    def _weight(self, report: TensorReport) -> str:
        spec, peaks = self.plan.weights[report.ref], report.peaks
        if peaks is not None and peaks.dead:
            channels = "channel is" if peaks.dead == 1 else "channels are"
            return f"{peaks.dead} of {peaks.channels} {channels} constant: nothing is lost by removing what it computes"
        if peaks is not None and peaks.own_scales_gain_db >= _HALF_DB:
            cause = (
                f"one scale for channels of which the loudest reaches {peaks.loudness:.3g} times as far as the median "
                f"one costs {peaks.own_scales_gain_db:.1f} dB"
            )
            return f"{cause}: {self._own_scales(spec)}"
        return ""

    def _own_scales(self, spec: QParamsSpec) -> str:
        permitted = self.target.numerics.weights
        if any(each.granularity is Granularity.PER_CHANNEL and each.format == spec.format for each in permitted):
            return "quantize.weights.granularity: per_channel"
        return "the target has no other scales; quantize.equalization: true brings the channels to like ranges"
