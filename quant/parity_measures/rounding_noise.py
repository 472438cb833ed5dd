"""One draw of the errors that rounding makes of what flows through a network, at the size that its operators say."""

from __future__ import annotations

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.parity_measures.rounding import Rounding, rounding_of


class RoundingNoise:
    """Errors of rounding on what flows through a captured network.

    A tensor is off by what its own operator rounds, relative to the element and to the tensor's root mean square (what
    cancels has been larger), and by the rounding of the sums behind it: a sound sum is the exact one of operands that
    are off by `u sqrt(k)` of themselves (backward stability; Higham 2002, section 3.1).
    """

    def __init__(self, captured: CapturedModel, arithmetic: str = "") -> None:
        graph = captured.graph
        self.roundings: dict[TensorRef, Rounding] = {}
        self._read: dict[TensorRef, float] = {}
        for node in graph.nodes:
            found = rounding_of(graph, node, arithmetic)
            self.roundings |= dict.fromkeys(node.outputs, found)
            for ref in node.tensors:
                self._read[ref] = max(self._read.get(ref, 0.0), found.expected)

    def made(self, ref: TensorRef, tensor: torch.Tensor, draw: torch.Generator, size: float = 1.0) -> torch.Tensor:
        """The tensor with one draw of the errors of what makes it, `size` times as large; whole numbers stay."""
        own = size * self.roundings[ref].expected if ref in self.roundings else 0.0
        return self._off(tensor, own, draw, absolute=True)

    def read(self, ref: TensorRef, tensor: torch.Tensor, draw: torch.Generator, size: float = 1.0) -> torch.Tensor:
        """With one draw of the errors of those who read it."""
        return self._off(tensor, size * self._read.get(ref, 0.0), draw, absolute=False)

    def _off(self, tensor: torch.Tensor, size: float, draw: torch.Generator, *, absolute: bool) -> torch.Tensor:
        if not size or not tensor.is_floating_point() or not tensor.numel():
            return tensor
        wide = tensor.double()  # float32 would round errors below its own last place away
        magnitude = wide.abs()
        if absolute:
            finite = torch.where(wide.isfinite(), wide, torch.zeros((), dtype=torch.float64))
            magnitude = (magnitude.square() + finite.square().mean()).sqrt()
        noise = torch.randn(tensor.shape, generator=draw, dtype=torch.float32)
        return torch.where(wide.isfinite(), wide + size * magnitude * noise, wide).to(tensor.dtype)
