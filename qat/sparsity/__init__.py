"""Networks made smaller in training: weights in patterns that hardware skips, and channels that are taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.qat.sparsity.pruning import Pruning, PruningReport
    from bitwright.qat.sparsity.removal import removable, remove
    from bitwright.qat.sparsity.sparse_weights import Sparsity, SparsityReport

__all__ = ["Pruning", "PruningReport", "Sparsity", "SparsityReport", "removable", "remove"]
__getattr__ = lazy_attributes(__name__, __file__)
