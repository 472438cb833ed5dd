"""What the lowering remembers between two networks: the tilings of loop nests, by the nest and the machine it meets.

That is what makes a network of which one layer has changed cheap to lower again: the changed nest is searched, all
others are looked up.
"""

from __future__ import annotations

from bitwright.hw_constraints.lower.tile import choose_tiling
from bitwright.hw_constraints.lower.tiled_ops import rows_tiling


def forget() -> None:
    """Forgets every tiling, so that the next lowering is a cold one."""
    choose_tiling.cache_clear()
    rows_tiling.cache_clear()
