"""Post-training quantization: fold, plan, calibrate, correct."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch

from bitwright.quant.bias_correction import correct_biases
from bitwright.quant.calibrate import Progress, calibrate, take
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.weights import weight_qparams

# Samples for the mean input of each layer; 64 instead of 16 gain 0.1 dB on MobileNetV2.
BIAS_SAMPLES = 16


@torch.no_grad()
def quantize(
    captured: CapturedModel,
    scheme: QuantScheme,
    batches: Iterable[Any],
    *,
    bias_correction: bool = True,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Quantizes a captured network after training.

    Args:
        captured: the network in float.
        scheme: what the target asks for.
        batches: calibration data, read once; see `calibrate`.
        bias_correction: remove each layer's mean error, measured on the first `BIAS_SAMPLES` samples.
        progress: called with the number of calibration batches done.

    Raises:
        InputError: no data, or NaN or infinity on the way.
    """
    folded = fold_batch_norm(captured)
    decided = plan(folded.graph, scheme)
    batches = iter(batches)
    first = take_batches(folded, batches, BIAS_SAMPLES) if bias_correction else []
    found = calibrate(folded, decided, itertools.chain(first, batches), progress=progress)
    qparams = {**found.qparams, **weight_qparams(folded.graph, decided, found.qparams)}
    quantized = QuantizedModel(captured=folded, plan=decided, qparams=qparams, dynamic=found.dynamic)
    return correct_biases(quantized, take(folded, first, BIAS_SAMPLES)) if first else quantized


def take_batches(captured: CapturedModel, batches: Iterable[Any], samples: int) -> list[Any]:
    """As many batches from the front as hold `samples` pieces of the captured batch size."""
    taken: list[Any] = []
    for batch in batches:
        taken.append(batch)
        if len(take(captured, taken, samples)) >= samples:
            break
    return taken
