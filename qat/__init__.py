"""Quantization-aware training in the user's own loop, by the same plan as PTQ."""

from __future__ import annotations

if __name__ != "bitwright.qat":
    raise ImportError(
        "import bitwright.qat, not qat: from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

__all__: list[str] = []
__getattr__ = lazy_attributes(__name__, __file__)
