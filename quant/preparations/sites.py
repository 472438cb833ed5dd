"""Inputs of linear layers whose channels can be scaled, and how: `x W^T = (x / s) (W diag(s))^T` for any s > 0.

Where a LayerNorm makes x for these layers alone, its weight and bias take up `1 / s` and the network has no operator
more. Elsewhere (behind a GELU, or where a residual reads x as well) a division stands in front of the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.plan import QuantPlan
from bitwright.quant.rewrite import Editor, aten

ROWS = 512  # of a site's input that errors are measured on, over all samples


@dataclass(frozen=True, eq=False)
class Site:
    """A tensor `[…, C]` and the linear layers that read it, all in low precision, each with a weight of its own."""

    data: TensorRef
    readers: tuple[Node, ...]


@dataclass
class Seen:
    """What flowed through a site.

    Attributes:
        low: the smallest value of each channel, `[C]`.
        high: the largest.
        magnitude: the mean of `|x|`.
        rows: some of its rows, `[n, C]`.
    """

    low: torch.Tensor
    high: torch.Tensor
    magnitude: torch.Tensor
    rows: torch.Tensor


def find_sites(graph: Graph, decided: QuantPlan) -> list[Site]:
    """Every input of quantized linear layers, in the order of the network."""
    readers: dict[TensorRef, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "linear" and node.name in decided.quantized:
            data, weight = node.tensors[:2]
            own = weight in decided.weights and len(graph.consumers[weight]) == 1
            if own and not graph.is_constant(data) and len(graph.tensors[data].shape) > 1:
                readers.setdefault(data, []).append(node)
    return [Site(data, tuple(nodes)) for data, nodes in readers.items()]


def watch(captured: CapturedModel, sites: Iterable[Site], samples: Iterable[Arguments]) -> dict[TensorRef, Seen]:
    """Runs the network and looks at each site; of every sample other rows are kept."""
    wanted = {site.data for site in sites}
    given = list(samples)
    kept: dict[TensorRef, list[torch.Tensor]] = {ref: [] for ref in wanted}
    ranges: dict[TensorRef, list[torch.Tensor]] = {ref: [] for ref in wanted}
    at = 0

    def look(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in wanted:
            rows = tensor.reshape(-1, tensor.shape[-1])
            ranges[ref].append(torch.stack([*torch.aminmax(rows, dim=0), rows.abs().mean(0)]))
            step = max(1, len(rows) * len(given) // ROWS)
            kept[ref].append(rows[at % step :: step].clone())
        return tensor

    running, state = ready_to_run(captured, wanted), captured.initial_state()
    for arguments in given:
        running.run(*arguments, state=state, transform=look)
        at += 1
    return {ref: _seen(torch.stack(ranges[ref]), torch.cat(kept[ref])) for ref in wanted if ranges[ref]}


def _seen(ranges: torch.Tensor, rows: torch.Tensor) -> Seen:
    return Seen(ranges[:, 0].amin(0), ranges[:, 1].amax(0), ranges[:, 2].mean(0), rows)


def scale_channels(captured: CapturedModel, factors: Mapping[Site, torch.Tensor]) -> CapturedModel:
    """The network with the channels of each site divided by its factors, float32 `[C]`; the results stay."""
    for site, scale in factors.items():
        norm = _own_norm(captured, site)
        values = {
            captured.value_refs[node.tensors[1]]: captured.values[captured.value_refs[node.tensors[1]]] * scale
            for node in site.readers
        }
        if norm is None:
            captured = _with_division(captured, site, scale)
        else:
            values |= {name: captured.values[name] / scale for name in norm}
        captured = replace(captured, values={**captured.values, **values})
    return captured


def _own_norm(captured: CapturedModel, site: Site) -> list[str] | None:
    """Names of the parameters of the LayerNorm that makes a tensor for the site's layers alone."""
    graph = captured.graph
    maker = graph.producers.get(site.data)
    if maker is None or maker.op != "layer_norm" or len(maker.tensors) != 3 or site.data in graph.outputs:
        return None
    parameters = maker.tensors[1:]
    alone = all(len(graph.consumers[ref]) == 1 and graph.is_constant(ref) for ref in parameters)
    over_channels = len(graph.tensors[parameters[0]].shape) == 1
    readers = {node.name for node in graph.consumers[site.data]} == {node.name for node in site.readers}
    return [captured.value_refs[ref] for ref in parameters] if alone and over_channels and readers else None


def _with_division(captured: CapturedModel, site: Site, scale: torch.Tensor) -> CapturedModel:
    edit = Editor(captured, site.readers[0].name)
    names = {node.name for node in site.readers}
    readers = [node for node in edit.graph.nodes if node.name in names]
    data = edit.tensor(site.data)
    divided = edit.call(aten.div.Tensor, data, edit.constant(scale, "channel_scale"))
    for reader in readers:
        reader.replace_input_with(data, divided)
    return edit.finish()
