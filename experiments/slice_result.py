"""The figures of one slice of the data, as they stand in the record of the evaluate stage."""

from __future__ import annotations

from bitwright.experiments.record import Figure, Part


class SliceResult(Part):
    """A slice of the evaluation data in float and quantized (first runtime).

    Attributes:
        name: of the slice.
        calibrated: how many of its samples calibrated.
        reference: the metric of the float network.
        quantized: of the quantized one.
        drop: how much worse the quantized network is, in the metric's unit.
        agreement: with the float network; None for a user's own metric.
        sqnr: of the results against float.
        warning: that the slice hardly calibrated, where it did not.
    """

    name: str
    calibrated: int
    reference: Figure
    quantized: Figure
    drop: Figure
    agreement: Figure | None
    sqnr: Figure
    warning: str = ""
