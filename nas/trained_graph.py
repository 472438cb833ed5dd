"""A candidate's network as a graph: as it will be once it is trained, whatever weights it has now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

# Factor, shift, mean and variance of a trained batch norm: its folding leaves a bias, which a fresh one's does not.
_TRAINED = (1.0, 1.0, 0.5, 1.0)


def trained_graph(model: torch.nn.Module, example: tuple[Any, ...]) -> Graph:
    """The network with its batch norms folded as those of a trained network are; its other values are its own.

    A fresh batch norm shifts nothing and leaves no bias; inherited weights and fresh ones would be two networks.

    Raises:
        CaptureError: the network cannot be captured.
    """
    return fold_batch_norm(_settled(capture(model, example))).graph


def _settled(captured: CapturedModel) -> CapturedModel:
    values = dict(captured.values)
    for node in captured.fx_graph.nodes:
        if operator_type(node) == "batch_norm":
            for operand, value in zip(node.args[1:5], _TRAINED, strict=True):
                name = getattr(operand, "name", None)
                if name in values:
                    values[name] = torch.full_like(values[name], value)
    return replace(captured, values=values)
