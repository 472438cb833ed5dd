"""Which layer gets which number format under a budget of latency, size, energy or accuracy: exact, then verified.

`problem.py` says what may be chosen, `tables.py` what it costs, `program.py` finds the optimum of these sums, and
`search.py` checks it on the network itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.quant.mixed_precision.budget import Cost, NetworkCost
    from bitwright.quant.mixed_precision.choice import Choice
    from bitwright.quant.mixed_precision.formats import FLOAT, LayerFormat
    from bitwright.quant.mixed_precision.networks import MixedNetworks
    from bitwright.quant.mixed_precision.problem import Group, Problem
    from bitwright.quant.mixed_precision.search import MixedSearch

__all__ = ["FLOAT", "Choice", "Cost", "Group", "LayerFormat", "MixedNetworks", "MixedSearch", "NetworkCost", "Problem"]
__getattr__ = lazy_attributes(__name__, __file__)
