"""What a batch norm computes, and the weights of layers that take it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from bitwright.quant.fx_nodes import KIND, REF, operator_type
from bitwright.quant.graph import TRANSPOSED_CONVOLUTIONS, TensorKind, TensorRef
from bitwright.quant.rewrite import arguments


@dataclass(frozen=True)
class Affine:
    """What a batch norm computes, float64 `[C]` each: `factor x + shift`; x has these means and deviations."""

    factor: torch.Tensor
    shift: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def at(self, channels: torch.Tensor) -> Affine:
        """Of these channels."""
        return Affine(self.factor[channels], self.shift[channels], self.mean[channels], self.deviation[channels])


def affine_of(norm: torch.fx.Node, values: dict[str, torch.Tensor]) -> Affine | None:
    """What a norm in evaluation computes; None where not all of its parameters are constants."""
    statistics: Any = norm.args[1:5]
    nodes = [node for node in statistics if node is not None]
    if any(node.meta.get(KIND) == TensorKind.STATE or node.name not in values for node in nodes):
        return None
    gamma, beta, mean, var = (values[node.name].double() if node is not None else None for node in statistics)
    assert mean is not None and var is not None  # a norm in evaluation has running statistics
    eps: Any = norm.args[7]
    factor = (gamma if gamma is not None else 1.0) / torch.sqrt(var + eps)
    shift = (beta if beta is not None else 0.0) - mean * factor
    return Affine(factor=factor, shift=shift, mean=mean, deviation=var.sqrt())


def rows_of(layer: torch.fx.Node, weight: torch.Tensor) -> torch.Tensor:
    """A layer's weight as `[groups, out / groups, in / groups, taps]`, float64."""
    groups = 1 if operator_type(layer) == "linear" else int(arguments(layer)["groups"])
    parts = weight.double().reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return parts.transpose(1, 2) if operator_type(layer) in TRANSPOSED_CONVOLUTIONS else parts


def weight_of(layer: torch.fx.Node, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The weight whose `rows_of` are these, in the shape and type of `like`."""
    parts = rows.transpose(1, 2) if operator_type(layer) in TRANSPOSED_CONVOLUTIONS else rows
    return parts.reshape(like.shape).to(like.dtype)


def scaled_outputs(layer: torch.fx.Node, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """A layer's weight with each output channel times its factor, `[out]`."""
    rows = rows_of(layer, weight)
    return weight_of(layer, rows * factor.reshape(*rows.shape[:2], 1, 1), weight)


def new_bias(graph: torch.fx.Graph, weight_node: torch.fx.Node, bias: torch.Tensor) -> torch.fx.Node:
    """A bias for the layer of a weight."""
    with graph.inserting_before(weight_node):
        node = graph.placeholder(f"{weight_node.name}_folded_bias")
    weight_ref = weight_node.meta[REF][0]
    path = weight_ref.module_path.rpartition(".")[0]
    node.meta.update(
        {
            REF: (TensorRef(weight_ref.region, f"{path}.bias" if path else "bias"),),
            KIND: TensorKind.PARAMETER,
            "val": bias,
        }
    )
    return node
