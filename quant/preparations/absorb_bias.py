"""High biases go into the next layer (Nagel et al. 2019, arXiv:1906.04721, section 4.1.3).

A channel whose values lie far above 0 spends most of its codes on values that never occur. With a ReLU in between,

    c = max(0, β - 3 γ),    r(W x + b - c) = r(W x + b) - c  wherever  W x + b >= c,
    b1' = b1 - c,    b2' = b2 + W2 c                                                            (equations 11 to 16)

moves it down by c. β and γ are mean and deviation before the ReLU: the paper's come from batch norms, here they are
measured, so that networks without any have them too. And c is nowhere above the smallest value that was seen: on what
was seen nothing changes, where the paper cuts off a share of 0.13 %. Layers behind are those that see no padding, which
would be a zero on the one side and `-c` on the other. A clamp (ReLU6) counts as a ReLU where no value came near its
end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.plan import plan
from bitwright.quant.preparations.between import Activation, find_activations
from bitwright.quant.scheme import QuantScheme

DEVIATIONS = 3.0  # equation 15
_HEADROOM = 1.25  # what was seen may be surpassed by so much without reaching a clamp's end, as in `equalize`


@dataclass
class _Seen:
    """Of each channel before an activation, float64 `[C]`."""

    low: torch.Tensor
    high: torch.Tensor
    total: torch.Tensor
    squares: torch.Tensor
    count: int

    def add(self, other: _Seen) -> None:
        self.low, self.high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        self.total, self.squares = self.total + other.total, self.squares + other.squares
        self.count += other.count


class AbsorbBias:
    """For activations in few bits; exact on the samples."""

    name = "absorb_bias"
    samples = 64

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module."""
        graph, decided = captured.graph, plan(captured.graph, scheme)
        places = [
            place
            for place in find_activations(graph)
            if place.node.outputs[0] in decided.activations and not any(_pads(graph, node) for node in place.readers)
        ]
        seen = _watch(captured, {place.maker.outputs[0] for place in places}, samples)
        values = dict(captured.values)
        for place in places:
            if place.maker.outputs[0] in seen:
                _move(captured, values, place, absorbed(seen[place.maker.outputs[0]], place.ceiling))
        return replace(captured, values=values)


def absorbed(seen: _Seen, ceiling: float) -> torch.Tensor:
    """`c` of each channel, float64 `[C]`."""
    mean = seen.total / seen.count
    deviation = (seen.squares / seen.count - mean.square()).clamp(min=0.0).sqrt()
    moved = torch.minimum(mean - DEVIATIONS * deviation, seen.low).clamp(min=0.0)
    return torch.where(seen.high * _HEADROOM <= ceiling, moved, 0.0)


def _watch(captured: CapturedModel, wanted: set[TensorRef], samples: Sequence[Arguments]) -> dict[TensorRef, _Seen]:
    found: dict[TensorRef, _Seen] = {}
    layers = {ref: captured.graph.producers[ref].op for ref in wanted}

    def look(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in wanted:
            axis = -1 if layers[ref] == "linear" else 1
            rows = tensor.movedim(axis, 0).flatten(1).double()
            now = _Seen(rows.amin(1), rows.amax(1), rows.sum(1), rows.square().sum(1), rows.shape[1])
            if ref in found:
                found[ref].add(now)
            else:
                found[ref] = now
        return tensor

    running, state = ready_to_run(captured, wanted), captured.initial_state()
    for arguments in samples:
        running.run(*arguments, state=state, transform=look)
    return found


def _pads(graph: Graph, node: Node) -> bool:
    """Whether a layer sees zeros that no channel has made, or only some of the channels."""
    if node.op == "linear":
        return False
    padding, groups = node.attributes.get("padding", 0), int(node.attributes.get("groups", 1))
    widths = padding if isinstance(padding, list | tuple) else [padding]
    is_whole = groups == 1 or graph.tensors[node.tensors[1]].shape[1] == 1
    return not is_whole or any(width not in (0, "valid") for width in widths)


def _move(captured: CapturedModel, values: dict[str, torch.Tensor], place: Activation, c: torch.Tensor) -> None:
    names = captured.value_refs
    own = names[place.maker.tensors[2]]
    values[own] = (values[own].double() - c).to(values[own].dtype)
    for node in place.readers:
        weight, bias = (names[ref] for ref in node.tensors[1:3])
        taps = values[weight].double().flatten(2).sum(2) if values[weight].dim() > 2 else values[weight].double()
        groups = int(node.attributes.get("groups", 1))
        each = math.prod(taps.shape) // len(c)  # how many results read a channel of a depthwise layer
        added = taps @ c if groups == 1 else taps[:, 0] * c.repeat_interleave(each)
        values[bias] = (values[bias].double() + added).to(values[bias].dtype)


PREPARATION = AbsorbBias()
