"""What the model remembers between two networks: blocks, steps, estimates, histograms and sizes of weights.

Everything is kept by content, so that a network of which one layer has changed is reckoned anew there alone.
"""

from __future__ import annotations

from bitwright.hw_constraints.cost.ethos_u import costs, weight_codes
from bitwright.hw_constraints.cost.ethos_u.blocks import choose_block
from bitwright.hw_constraints.cost.ethos_u.weights import encode


def forget() -> None:
    """Forgets all of it, so that the next estimate is a cold one."""
    choose_block.cache_clear()
    encode.cache_clear()
    costs.forget()
    weight_codes.forget()
