"""Whether two forms of one network compute the same, and where they stop to.

`compare` says it of results (`results.py`); `compare_links` names the layers (`locate.py`); `compare_chain` the link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.quant.parity.chain import ChainParity, compare_chain
    from bitwright.quant.parity.link import Link, LinkError, LinkTensor, Recording
    from bitwright.quant.parity.locate import LayerParity, LinkParity, compare_links
    from bitwright.quant.parity.results import EXACT, Inputs, Origin, Parity, TensorParity, compare

__all__ = [
    "EXACT",
    "ChainParity",
    "Inputs",
    "LayerParity",
    "Link",
    "LinkError",
    "LinkParity",
    "LinkTensor",
    "Origin",
    "Parity",
    "Recording",
    "TensorParity",
    "compare",
    "compare_chain",
    "compare_links",
]
__getattr__ = lazy_attributes(__name__, __file__)
