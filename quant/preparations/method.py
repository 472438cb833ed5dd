"""What a preparation is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class Preparation(Protocol):
    """Rewrites a network in float.

    Attributes:
        name: as users write it.
        samples: how many it wants to see.
    """

    name: str
    samples: int

    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """The network with the same results; `samples` are arguments of `forward` at the captured batch size."""


@runtime_checkable
class Finishing(Preparation, Protocol):
    """Has something to do as well when the network is quantized."""

    def finish(self, quantized: QuantizedModel, truth: CapturedModel, samples: Sequence[Arguments]) -> QuantizedModel:
        """The network with other parameters and scales.

        Args:
            quantized: the network, its weights rounded and its biases corrected.
            truth: the same graph in float, with the parameters that it had before that.
            samples: arguments of `forward` at the captured batch size.
        """
