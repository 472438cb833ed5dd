"""Scales that a method chooses beside weights and biases: how they are kept with them, and put in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from bitwright.quant.graph import TensorRef
from bitwright.quant.quantized_model import QuantizedModel

_PREFIX = "scale of "


def named(scales: Mapping[TensorRef, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under names that no parameter has."""
    return {f"{_PREFIX}{ref}": scale for ref, scale in scales.items()}


def with_named(quantized: QuantizedModel, values: Mapping[str, torch.Tensor]) -> QuantizedModel:
    """The network with the scales among `values`, which may hold parameters, too."""
    refs = {f"{_PREFIX}{ref}": ref for ref in quantized.qparams}
    return with_scales(quantized, {refs[name]: value for name, value in values.items() if name in refs})


def with_scales(quantized: QuantizedModel, scales: Mapping[TensorRef, torch.Tensor]) -> QuantizedModel:
    """The network with other steps of some tensors."""
    if not scales:
        return quantized
    qparams = {ref: replace(quantized.qparams[ref], scale=scale) for ref, scale in scales.items()}
    return replace(quantized, qparams={**quantized.qparams, **qparams})
