"""Part of a captured network: the operators between tensors that are given and tensors that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

from bitwright.quant.captured_model import CapturedModel, Transform, call
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import TensorRef
from bitwright.quant.parity.results import Inputs


def run_part(
    captured: CapturedModel,
    inputs: Inputs,
    *,
    wanted: Collection[str],
    given: Collection[str],
    transform: Transform,
    stand_in: Callable[[TensorRef, torch.dtype], torch.Tensor],
    operands: Mapping[str, Mapping[str, torch.Tensor]],
) -> None:
    """Runs what the wanted tensors hang on, no further back than what is given.

    Args:
        captured: the whole network.
        inputs: the arguments of its `forward` and its state, for what hangs on them.
        wanted: names of tensors to compute.
        given: names of tensors whose readers need not wait for them.
        transform: as of `CapturedModel.execute`, called with what is computed.
        stand_in: what readers of a given tensor get that is not computed.
        operands: as of `CapturedModel.execute`.
    """
    needed = _needed(captured, frozenset(wanted), frozenset(given))
    read = {operand for node in needed for operand in node.all_input_nodes}
    leaves = captured.flatten(tuple(inputs.args), dict(inputs.kwargs))
    incoming = state_before(captured, inputs)
    environment: dict[torch.fx.Node, Any] = {}
    for node, dead in captured.steps:
        is_input = node.op == "placeholder" and node.name not in captured.values
        value: Any = next(leaves) if is_input else incoming.get(node.name, captured.values.get(node.name))
        if node.op == "placeholder" and (node in needed or node in read):
            is_constant = not is_input and node.name not in incoming
            environment[node] = value if is_constant else transform(node.meta[REF][0], value)
        elif node in needed:
            call(node, environment, transform, operands.get(node.name))
        elif node in read:
            environment[node] = stand_in(node.meta[REF][0], node.meta["val"].dtype)
        for spent in dead:
            environment.pop(spent, None)


def state_before(captured: CapturedModel, inputs: Inputs) -> dict[str, torch.Tensor]:
    """What a network remembers before a call, by placeholder."""
    found = captured.initial_state()
    names = {value_name(ref): node for ref, node in captured.value_refs.items() if node in found}
    return found | {
        names[name]: torch.from_numpy(np.array(each)) for name, each in inputs.state.items() if name in names
    }


def _needed(captured: CapturedModel, wanted: frozenset[str], given: frozenset[str]) -> set[torch.fx.Node]:
    """The nodes to run; those of several results are, also where all of these are given."""

    def names(node: torch.fx.Node) -> list[str]:
        return [value_name(ref) for ref in node.meta.get(REF, ()) if ref is not None]

    nodes = [node for node in captured.fx_graph.nodes if node.op != "output"]
    waiting = [node for node in nodes if not wanted.isdisjoint(names(node))]
    found: set[torch.fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [
                each for each in node.all_input_nodes if not (len(names(each)) == 1 and names(each)[0] in given)
            ]
    return found
