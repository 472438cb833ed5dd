"""Scores a candidate in stages from cheap to dear; the first one that refuses it ends it, with its reason.

`evaluation` has the stages in their order, `attempt` carries a candidate through them; each other file is the stages of
one kind. Importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.nas.objective.evaluation import evaluate, score, screen, time_scored

__all__ = ["evaluate", "score", "screen", "time_scored"]
__getattr__ = lazy_attributes(__name__, __file__)
