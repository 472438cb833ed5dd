"""Post-training quantization: fold, plan, calibrate, round, correct."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from bitwright.quant.bias_correction import MeanInputs, corrected
from bitwright.quant.calibrate import Arguments, Progress, calibrate_pieces
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_spaces import channel_axes
from bitwright.quant.equalize import ChannelStatistics, equalize
from bitwright.quant.equalize_choice import equalization_helps
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import give_back_memory
from bitwright.quant.observers.importance import Importance
from bitwright.quant.plan import plan
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.preparations.method import Finishing, Preparation
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct import ROUNDINGS
from bitwright.quant.reconstruct.float_results import FloatResults
from bitwright.quant.reconstruct.method import RoundingMethod
from bitwright.quant.reconstruct.reconstruct import reconstruct
from bitwright.quant.reconstruct.store import Pieces
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.sensitivity import channel_sensitivity
from bitwright.quant.weights import weight_qparams

EQUALIZATION_SAMPLES = 16

Equalization = bool | Literal["auto"]


@torch.no_grad()
def quantize(
    captured: CapturedModel,
    scheme: QuantScheme,
    batches: Iterable[Any],
    *,
    bias_correction: bool = True,
    equalization: Equalization = False,
    preparations: Sequence[str] = (),
    rounding: str | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    rounding_progress: Progress | None = None,
    watch: Callable[[str, CapturedModel], None] | None = None,
) -> QuantizedModel:
    """Quantizes a captured network after training.

    Args:
        captured: the network in float.
        scheme: what the target asks for.
        batches: calibration data, read once; see `calibrate`.
        bias_correction: remove each layer's mean error; not with a `rounding`, which chooses biases as well.
        equalization: bring channels to like ranges first, and weigh each channel's errors by what they do to the
            results; `forward` must be differentiable. With "auto" only where it helps (`equalize_choice`).
        preparations: of `PREPARATIONS.names()`, in their order: rewrites that leave the results as they are, and steps
            behind everything else that belong to them.
        rounding: one of `ROUNDINGS.names()`: rounds each layer's weights in view of the inputs that the quantized
            network in front of it makes, of as many samples as it asks for, kept on disk where they are large.
        folder: where rounding keeps its finished layers until all are, so that a run that was killed goes on behind
            them.
        progress: called with the number of calibration batches done.
        rounding_progress: called with the number of rounded layers.
        watch: called with the name of each rewrite of the float network and the network behind it.

    Raises:
        InputError: no data, no such rounding or preparation, or NaN or infinity on the way.
    """
    asked: list[Preparation] = [PREPARATIONS.load(name) for name in preparations]
    method: RoundingMethod | None = None if rounding is None else ROUNDINGS.load(rounding)
    seen = watch or (lambda rewrite, network: None)
    folded = fit_scheme(captured, scheme)
    seen("fit_scheme", folded)
    pieces = Pieces(folded, batches)
    ahead = [each.samples for each in (*asked, method) if each is not None]
    pieces.first(max([EQUALIZATION_SAMPLES, *ahead] if equalization else ahead, default=0))
    samples = () if method is None else pieces.first(method.samples)
    for each in asked:
        folded = each.prepare(folded, scheme, pieces.first(each.samples))
        seen(each.name, folded)
    importance: dict[TensorRef, Importance] = {}
    if equalization and (first := pieces.first(EQUALIZATION_SAMPLES)):
        found_equal = _equalized(folded, scheme, first, asked=equalization is True)
        if found_equal is not None:
            folded, importance = found_equal
            seen("equalization", folded)
    decided = plan(folded.graph, scheme)
    truth = FloatResults(folded, decided, len(samples)) if samples else None
    inputs = MeanInputs(folded, decided) if bias_correction and method is None else None
    found = calibrate_pieces(folded, decided, pieces, importance=importance, progress=progress, also=truth or inputs)
    qparams = {**found.qparams, **weight_qparams(folded.graph, decided, found.qparams)}
    quantized = QuantizedModel(captured=folded, plan=decided, qparams=qparams, dynamic=found.dynamic)
    if method is not None:
        give_back_memory()
        quantized = reconstruct(quantized, samples, method, truth=truth, folder=folder, progress=rounding_progress)
    elif inputs is not None:
        quantized = corrected(quantized, inputs)
    for each in asked:
        if isinstance(each, Finishing):
            quantized = each.finish(quantized, folded, pieces.first(each.samples))
    return quantized


def _equalized(
    folded: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments], *, asked: bool
) -> tuple[CapturedModel, dict[TensorRef, Importance]] | None:
    """The network with like channels and what an error in each of them weighs; None where it hurts and nobody asked."""
    axes = channel_axes(folded.graph)
    seen = ChannelStatistics(axes)
    before = channel_sensitivity(folded, axes, samples, watch=seen.note)
    equalized = equalize(folded, scheme, before, seen)
    importance = {
        ref: Importance(weights.double(), axes[ref], seen.typical_energy(ref, before[ref]))
        for ref, weights in equalized.sensitivity(before).items()
    }
    if not asked and not equalization_helps(folded, equalized.captured, importance, scheme, samples):
        return None
    return equalized.captured, importance
