"""What the stage `qat` finds: training in low precision beside rounding, and what was made smaller on the way."""

from __future__ import annotations

from typing import Literal

from bitwright.experiments.record import Figure, Part
from bitwright.experiments.results import Epoch


class QATEpoch(Epoch):
    """An epoch of quantization-aware training; `quantized`: the metric of the simulated network behind it."""

    quantized: Figure | None = None


class PrunedChannels(Part):
    """Channels that left the network before it was trained in low precision.

    Attributes:
        before: what the whole network costs.
        after: what the smaller one does, by the same reckoning.
        epochs: of the training in which channels left.
        channels: how many channels each group had and has.
        refused: what could not shrink, and why.
    """

    before: Figure
    after: Figure
    epochs: tuple[Epoch, ...]
    channels: dict[str, tuple[int, int]]
    refused: dict[str, str]


class SparseWeights(Part):
    """Weights that have a pattern of zeros.

    Attributes:
        pattern: as asked for.
        zeros: of all the weights that have the pattern, the share that is zero in the written file.
        weights: how many elements those are.
        dense: why other weights do not have it.
    """

    pattern: str
    zeros: Figure
    weights: int
    dense: dict[str, str]


class LearnedFormats(Part):
    """Formats that were learned layer by layer before the training.

    Attributes:
        formats: of each group of layers, by its first module.
        cost: of the network with these formats.
        budget: what it may cost.
        first: what everything in the first of the candidates costs.
        epochs: of the search.
    """

    formats: dict[str, str]
    cost: Figure
    budget: Figure
    first: Figure
    epochs: tuple[Epoch, ...]


class QATResult(Part):
    """Quantization-aware training beside post-training quantization at the same formats.

    Attributes:
        scheme: the formats, in words.
        metric: what is compared.
        direction: whether more of it is better.
        engine: what ran both artefacts.
        epochs: the training.
        reference: the metric of the float network, whole and dense.
        ptq: of the network quantized after training; of the smaller one where channels left, without zeros.
        qat: of the network trained on.
        gain: how much better QAT is than PTQ, paired by sample; negative when worse.
        pruned: what left, where the recipe asks for it.
        sparse: likewise the zeros.
        mixed: formats that were learned, where it asks for that.
        size: of the trained network's file.
    """

    scheme: str
    metric: str
    direction: Literal["higher", "lower"]
    engine: str
    epochs: tuple[QATEpoch, ...]
    reference: Figure
    ptq: Figure
    qat: Figure
    gain: Figure
    pruned: PrunedChannels | None = None
    sparse: SparseWeights | None = None
    mixed: LearnedFormats | None = None
    size: Figure | None = None
