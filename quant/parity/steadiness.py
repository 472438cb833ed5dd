"""Whether a link gives the same twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitwright.quant.parity.link import Array, Link
from bitwright.quant.parity.prefix import Prefix
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.stretches import Stretch


def unsteady(link: Link, inputs: Inputs, parts: Sequence[Stretch]) -> tuple[str, ...]:
    """Tensors and results that differ between two runs on the same input; the second draws other random numbers.

    Args:
        link: what runs.
        inputs: the arguments of the network's `forward`.
        parts: its tensors, compared a stretch at a time.
    """
    own = {name: name for part in parts for name in part.known}
    runs = Prefix(link, inputs, parts, own), Prefix(link, inputs, parts, own)
    found: dict[str, None] = {}
    for number, part in enumerate(parts):
        with torch.random.fork_rng(devices=[]):
            first = runs[0].run(number, part)
            torch.manual_seed(torch.initial_seed() + 1)
            again = runs[1].run(number, part)
        pairs = [*((n, v, again.tensors.get(n)) for n, v in first.tensors.items()),
                 *((n, v, again.outputs.get(n)) for n, v in first.outputs.items())]  # fmt: skip
        found |= dict.fromkeys(name for name, value, other in pairs if other is None or not _equal(value, other))
    return tuple(found)


def _equal(first: Array, second: Array) -> bool:
    floats = first.dtype.kind in "fc"
    return first.shape == second.shape and bool(np.array_equal(first, second, equal_nan=floats))
