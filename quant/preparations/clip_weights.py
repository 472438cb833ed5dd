"""Weights are cut off where rounding what is left costs least: clipping against rounding error, channel by channel.

    t = argmin over t of  sum (w - Q_t(w))^2,    w' = clamp(w, -t, t)

with `Q_t` rounding to as many steps as the format has between -t and t, over the grid of t that the observer `mse` of
weights has (clipping by MSE: Zhao et al. 2019, arXiv:1901.09504, section 2). The float network changes by what is cut
off: the one preparation that is not exact. It is for schemes whose weights have their ranges by extremes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bitwright.quant.bias_correction import MeanInputs, compensated
from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import aligned
from bitwright.quant.formats import IntFormat
from bitwright.quant.operand_axes import summed_axis, weight_axis
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.weights import choose_weight_qparams


class ClipWeights:
    """Data says what the weights that are cut off have added on the mean; biases add it instead."""

    name = "clip_weights"
    samples = 16

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module; weights in float formats, whose steps grow with the values, stay as they are."""
        graph, decided = captured.graph, plan(captured.graph, scheme)
        clipped: dict[str, torch.Tensor] = {}
        for ref, spec in decided.weights.items():
            layers = [node for node in graph.consumers[ref] if graph.is_layer(node)]
            if not layers or not isinstance(spec.format, IntFormat):
                continue
            weight = captured.values[captured.value_refs[ref]]
            axis = weight_axis(graph, ref) if spec.block_size is None else summed_axis(graph, ref)
            qparams = choose_weight_qparams(weight, replace(spec, observer="mse"), axis)
            low, high = (aligned(bound, qparams, weight) for bound in qparams.range)
            low = -high if spec.symmetric else low  # one code more below 0 would widen the range again
            clipped[captured.value_refs[ref]] = torch.minimum(torch.maximum(weight, low), high)
        lost = {name: captured.values[name] - weight for name, weight in clipped.items()}
        captured = compensated(captured, decided, lost, MeanInputs.of_samples(captured, decided, samples))
        return replace(captured, values={**captured.values, **clipped})


PREPARATION = ClipWeights()
