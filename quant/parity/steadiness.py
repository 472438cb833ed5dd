"""Whether a link gives the same twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitwright.quant.parity.link import Array, Link
from bitwright.quant.parity.results import Inputs


def unsteady(link: Link, inputs: Inputs, wanted: Sequence[str]) -> tuple[str, ...]:
    """Tensors and results that differ between two runs on the same input; the second draws other random numbers."""
    with torch.random.fork_rng(devices=[]):
        first = link.run(inputs, wanted=wanted)
        torch.manual_seed(torch.initial_seed() + 1)
        again = link.run(inputs, wanted=wanted)
    pairs = [*((n, v, again.tensors.get(n)) for n, v in first.tensors.items()),
             *((n, v, again.outputs.get(n)) for n, v in first.outputs.items())]  # fmt: skip
    return tuple(name for name, value, other in pairs if other is None or not _equal(value, other))


def _equal(first: Array, second: Array) -> bool:
    floats = first.dtype.kind in "fc"
    return first.shape == second.shape and bool(np.array_equal(first, second, equal_nan=floats))
