"""From a proposal that may not be made to one that may: as few changes as it takes."""

from __future__ import annotations

import numpy as np

from bitwright.nas.sampling.archive import Archive
from bitwright.nas.sampling.grid import Places

_LOOKED_AT = 4096


def nearest_admissible(start: Places, archive: Archive, rng: np.random.Generator) -> Places:
    """Looks at the neighbours of a candidate, then at theirs, each ring in random order, up to 4096 candidates.

    Where all of these were tried or are refused, there is nothing new to propose: then a candidate that was tried
    before comes back (a look-up for the driver, which ends after many in a row), or, when nothing was tried, `start`.
    """
    grid = archive.known.grid
    looked, ring = {start}, [start]
    while ring and len(looked) < _LOOKED_AT:
        outer = dict.fromkeys(n for each in ring for n in grid.neighbours(each) if n not in looked)
        ring = list(outer)
        rng.shuffle(ring)
        for each in ring:
            if archive.admits(each):
                return each
        looked.update(ring)
    return archive.scored[-1] if archive.scored else start
