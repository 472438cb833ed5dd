"""Random errors of a few units in the last place on what enters a link that cannot be reached inside.

This is Monte Carlo arithmetic (Parker, *Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) with one sample: where the
result of a network moves under such errors, another order of additions moves it as well. Captured networks draw them at
every operator, at its own size (`parity_measures.rounding_noise`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.quant.parity.link import Array
from bitwright.quant.parity.results import Inputs

# Eight units in the last place of float32: sums of a thousand terms round by about that much (sqrt(1024) / 4). What
# is inside is not known, so nothing tells how many terms it adds up.
_SIZE = 2.0**-20


class Nudge:
    """Multiplies values by `1 + 2**-20 u`, u uniform in [-1, 1]; the same draws in every run."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._generator = torch.Generator().manual_seed(0)

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.rand(tensor.shape, generator=self._generator, dtype=torch.float32).mul_(2).sub_(1)
        return tensor * (1 + _SIZE * noise).to(tensor.dtype)

    def array(self, array: Array) -> Array:
        """Real values; whole numbers stay."""
        if not self._on or array.dtype.kind != "f":
            return array
        nudged: Array = self._tensor(torch.from_numpy(np.array(array))).numpy()
        return nudged

    def inputs(self, inputs: Inputs) -> Inputs:
        """The arguments of a call."""
        if not self._on:
            return inputs
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._tensor, (inputs.args, dict(inputs.kwargs)))
        return replace(inputs, args=args, kwargs=kwargs)
