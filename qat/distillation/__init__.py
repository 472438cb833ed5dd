"""Learning from another network: its outputs, its features, what it attends to.

The teacher is the float network itself, copied before the callback is attached, or any other network. `Distiller` runs
it beside the one that trains and adds the terms up; the functions of the terms stand alone, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.qat.distillation.attention import attention_map_loss, attention_matrix_loss
    from bitwright.qat.distillation.balance import Balance
    from bitwright.qat.distillation.distiller import Distiller
    from bitwright.qat.distillation.features import feature_loss
    from bitwright.qat.distillation.heads import box_loss, channel_map_loss, score_loss
    from bitwright.qat.distillation.logits import distillation_loss
    from bitwright.qat.distillation.terms import (
        AttentionMap,
        AttentionMatrix,
        Boxes,
        ChannelMaps,
        Feature,
        Logits,
        Scores,
        Term,
    )

__all__ = [
    "AttentionMap",
    "AttentionMatrix",
    "Balance",
    "Boxes",
    "ChannelMaps",
    "Distiller",
    "Feature",
    "Logits",
    "Scores",
    "Term",
    "attention_map_loss",
    "attention_matrix_loss",
    "box_loss",
    "channel_map_loss",
    "distillation_loss",
    "feature_loss",
    "score_loss",
]
__getattr__ = lazy_attributes(__name__, __file__)
