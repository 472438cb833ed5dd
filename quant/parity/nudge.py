"""Random errors of a few units in the last place on every value: what comes of them shows how rounding errors grow.

This is Monte Carlo arithmetic (Parker, *Monte Carlo Arithmetic*, UCLA CSD-970002, 1997) with one sample: where the
result of a network moves under such errors, another order of additions moves it as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.quant.parity.link import Array
from bitwright.quant.parity.results import Inputs

# Eight units in the last place of float32: sums of a thousand terms round by about that much (sqrt(1024) / 4).
ROUNDING = 2.0**-20


class Nudge:
    """Multiplies values by `1 + size * u`, u uniform in [-1, 1]; the same draws in every run."""

    def __init__(self, size: float) -> None:
        self._size = size
        self._generator = torch.Generator().manual_seed(0)

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Real values; whole numbers stay."""
        if not self._size or not tensor.is_floating_point():
            return tensor
        noise = torch.rand(tensor.shape, generator=self._generator, dtype=torch.float32).mul_(2).sub_(1)
        return tensor * (1 + self._size * noise).to(tensor.dtype)

    def array(self, array: Array) -> Array:
        """The same in NumPy."""
        if not self._size or array.dtype.kind != "f":
            return array
        nudged: Array = self.tensor(torch.from_numpy(np.array(array))).numpy()
        return nudged

    def inputs(self, inputs: Inputs) -> Inputs:
        """The arguments of a call."""
        if not self._size:
            return inputs
        args, kwargs = pytree.tree_map_only(torch.Tensor, self.tensor, (inputs.args, dict(inputs.kwargs)))
        return replace(inputs, args=args, kwargs=kwargs)
