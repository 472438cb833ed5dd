"""The quality of one quantized tensor, as it stands in the record of the quantize stage."""

from __future__ import annotations

from typing import Literal

from bitwright.experiments.record import Figure, Part


class TensorQuality(Part):
    """How well one tensor survives quantization.

    Attributes:
        tensor: its `TensorRef`.
        module_path: the module that makes it.
        op: the operator that makes it; empty for inputs and weights.
        kind: `activation` or `weight`.
        format: its number format.
        sqnr: signal to quantization noise against the float network, with everything before it quantized, too.
            Weights: of the rounding alone.
        own_sqnr: the same, given its quantized inputs in float: which layer is to blame.
        clipped: share of the float values that the format cuts off.
        low: the smallest real value that is not clipped (per channel: the smallest of all).
        high: the largest.
        counts: a histogram of the float values over the calibration data.
        edges: its bin edges, one more than counts.
        before: `sqnr` with the same formats and weights rounded to nearest, biases and channels left as they are; None
            where the recipe asks for nothing else, or the tensor was not quantized then.
        own_before: `own_sqnr` of that.
        clip_noise: share of its rounding's noise that is made by what is cut off, in percent.
        dead_channels: of its channels, those that show one value only.
        channels: how many it has; 0 where it has none.
        advice: what its noise comes from and what would help, where one cause makes more than half of it.
    """

    tensor: str
    module_path: str
    op: str
    kind: Literal["activation", "weight"]
    format: str
    sqnr: Figure
    own_sqnr: Figure
    clipped: Figure
    low: float
    high: float
    counts: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    before: Figure | None = None
    own_before: Figure | None = None
    clip_noise: Figure | None = None
    dead_channels: int = 0
    channels: int = 0
    advice: str = ""
