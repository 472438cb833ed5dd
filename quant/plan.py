"""The quantization plan: which tensor gets which format, and who shares scale and zero point.

Decided once, from the graph and a scheme; PTQ, QAT and every exporter follow it. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.quant.graph import TensorRef
from bitwright.quant.scheme import QParamsSpec, QuantScheme


@dataclass(frozen=True, kw_only=True)
class BiasPlan:
    """A bias kept as int32 with scale = scale(input) * scale(weight) and zero point 0."""

    bias: TensorRef
    input: TensorRef
    weight: TensorRef


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """What to quantize, how, and what not, and why not.

    Attributes:
        scheme: where it came from.
        activations: spec of each quantized activation.
        weights: spec of each quantized parameter.
        groups: sets of activations that carry the same qparams.
        biases: the biases kept as int32, by the name of the node that reads them.
        fused: node names that run as one, anchor first.
        quantized: names of the nodes that run in low precision.
        kept_float: the reason for each node that has floating-point work and stays in float.
    """

    scheme: QuantScheme
    activations: Mapping[TensorRef, QParamsSpec]
    weights: Mapping[TensorRef, QParamsSpec]
    groups: tuple[frozenset[TensorRef], ...]
    biases: Mapping[str, BiasPlan]
    fused: tuple[tuple[str, ...], ...]
    quantized: frozenset[str]
    kept_float: Mapping[str, str]
