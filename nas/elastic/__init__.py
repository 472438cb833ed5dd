"""Networks with shared weights: one largest network, and candidates whose tensors are parts of its tensors.

Importing this package loads no torch; the function named like its module is imported from there:
`from bitwright.nas.elastic.elasticize import elasticize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.nas.elastic.built import BuiltElastic
    from bitwright.nas.elastic.decisions import Shrinkage
    from bitwright.nas.elastic.elastic import Elastic, Share, inherit, shared_state

__all__ = ["BuiltElastic", "Elastic", "Share", "Shrinkage", "inherit", "shared_state"]
__getattr__ = lazy_attributes(__name__, __file__)
