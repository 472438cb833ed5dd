"""Autotune: where Q/DQ go on one runtime, by measured latency and measured accuracy together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.hw_constraints.autotune.decision import Decision
    from bitwright.hw_constraints.autotune.fidelity import Fidelity
    from bitwright.hw_constraints.autotune.laboratory import Budget
    from bitwright.hw_constraints.autotune.tuning import Tuned, autotune

__all__ = ["Budget", "Decision", "Fidelity", "Tuned", "autotune"]
__getattr__ = lazy_attributes(__name__, __file__)
