"""Networks made smaller in training: weights in patterns that hardware skips, and channels that are taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.qat.sparsity.removal import removable, remove

__all__ = ["removable", "remove"]
__getattr__ = lazy_attributes(__name__, __file__)
