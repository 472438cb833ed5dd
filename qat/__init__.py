"""Quantization-aware training in the user's own loop, by the same plan as PTQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "bitwright.qat":
    raise ImportError(
        "import bitwright.qat, not qat: from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.qat.board import Deployed, QATBoard
    from bitwright.qat.callback import QATCallback
    from bitwright.qat.deploy import Difference, differences
    from bitwright.qat.distillation import distillation_loss
    from bitwright.qat.format_search import FormatSearch, SearchSettings
    from bitwright.qat.quantized_regions import QuantizedRegions
    from bitwright.qat.quantizer import Quantizer
    from bitwright.qat.regions import FloatPart
    from bitwright.qat.schedule import Freezing, QATSchedule, Ramp, Stage
    from bitwright.qat.scheme import with_formats

__all__ = [
    "Deployed",
    "Difference",
    "FloatPart",
    "FormatSearch",
    "Freezing",
    "QATBoard",
    "QATCallback",
    "QATSchedule",
    "QuantizedRegions",
    "Quantizer",
    "Ramp",
    "SearchSettings",
    "Stage",
    "differences",
    "distillation_loss",
    "with_formats",
]
__getattr__ = lazy_attributes(__name__, __file__)
