"""The integer reference beside a file that a runtime ran: each layer computed from the runtime's own codes.

A layer that differs does so by itself: what came before it was the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bitwright.quant.graph import TensorRef
from bitwright.quant.integer.codes import Array
from bitwright.quant.integer.network import IntegerLayers, grid_of
from bitwright.quant.integer.rules import MLAS, Arithmetic
from bitwright.quant.quantized_model import QuantizedModel

FLOAT_RULE = "floating point, then rounded"


@dataclass(frozen=True, kw_only=True)
class LayerCodes:
    """One tensor's codes beside the runtime's.

    Attributes:
        ref: the tensor.
        rule: the operator whose integer arithmetic made them, or `FLOAT_RULE`.
        unlike: how many differ.
        distance: by how many codes at most.
        elements: of how many.
    """

    ref: TensorRef
    rule: str
    unlike: int
    distance: int
    elements: int


def compare_codes(
    quantized: QuantizedModel,
    arguments: tuple[Any, ...],
    deployed: Mapping[TensorRef, Array],
    *,
    arithmetic: Arithmetic = MLAS,
) -> tuple[LayerCodes, ...]:
    """Compares layer by layer, each given the runtime's codes.

    Args:
        quantized: the network; integer formats.
        arguments: of `forward`.
        deployed: the codes that a runtime had for these arguments, in the tensors' shapes.
        arithmetic: the runtime's.
    """
    layers = IntegerLayers(quantized=quantized, arithmetic=arithmetic)
    found: list[LayerCodes] = []

    def on_deployed_codes(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        ours = layers(ref, tensor)
        if ref not in deployed:
            return ours
        theirs = deployed[ref].astype(np.int64)
        distance = np.abs(layers.codes[ref] - theirs)
        found.append(
            LayerCodes(
                ref=ref,
                rule=layers.computed.get(ref, FLOAT_RULE),
                unlike=int((distance > 0).sum()),
                distance=int(distance.max(initial=0)),
                elements=distance.size,
            )
        )
        layers.codes[ref] = theirs
        return torch.from_numpy(grid_of(quantized.qparams[ref]).real(theirs))

    quantized.run(*arguments, transform=on_deployed_codes)
    return tuple(found)
