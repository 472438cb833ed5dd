"""Attention and recurrent layers, called as one function, trained in the parts that the plan has of them.

Where a scheme has products and linear layers in low precision, the plan is made for a graph in which
`scaled_dot_product_attention`, `lstm`, `gru` and their cells are written out (`quant.fit_scheme`). In training the
user's call of such a function runs through the same text that wrote it out, operator by operator, with the weights,
biases and results of each as the plan has them. So its module tree and its parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.qat.call_sites import Rewrite, Site
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.fx_nodes import MADE
from bitwright.quant.graph import Node
from bitwright.quant.passes.write_out_attention import attended
from bitwright.quant.passes.write_out_recurrence import cell_results, layer_results, time_axis
from bitwright.quant.rewrite import Operators, aten, named_arguments

_ATTENTION = "scaled_dot_product_attention"
_LAYERS, _CELLS = ("lstm", "gru"), ("lstm_cell", "gru_cell")

_WRITTEN_OUT = frozenset([_ATTENTION, *_LAYERS, *_CELLS])


@dataclass(frozen=True, kw_only=True)
class Part:
    """One operator that a call is made of.

    Attributes:
        target: the operator of ATen.
        operands: what is read in place of single operands, by their place among its tensors.
        results: the site of each of its results; None where one stays as it is.
    """

    target: Any
    operands: Mapping[int, Rewrite]
    results: tuple[Site | None, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenOut:
    """What runs in the place of one call.

    Attributes:
        where: the call in words, for messages.
        op: its operator.
        target: the same in ATen, whose schema names the arguments.
        steps: how many steps of time a recurrent layer was written out for; None of others.
        parts: what it is made of, by their number; those that the capture has folded into constants are not among them.
    """

    where: str
    op: str
    target: Any
    steps: int | None
    parts: dict[int, Part]

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The results of the call.

        Raises:
            InputError: it is called in another way than when the model was prepared.
        """
        given = named_arguments(self.target, args, kwargs)
        self._check(given)
        running = _Running(self)
        if self.op == _ATTENTION:
            return attended(running, given)
        results = (cell_results if self.op in _CELLS else layer_results)(running, self.op, given)
        return results if len(results) > 1 else results[0]

    def _check(self, given: Mapping[str, Any]) -> None:
        if self.op == _ATTENTION:
            mask = given["attn_mask"]
            if given["is_causal"] or given["enable_gqa"] or (mask is not None and mask.dtype == torch.bool):
                raise self.changed("a mask or keys of another kind")
        elif self.op in _LAYERS:
            if not isinstance(given["has_biases"], bool):  # of packed sequences the arguments are others
                raise self.changed("packed sequences")
            steps = given["input"].shape[time_axis(dict(given))]
            if steps != self.steps:
                raise InputError(
                    f"{self.where} gets a sequence of {steps} steps; the model was prepared with {self.steps}, each of "
                    "which has scales of its own: give sequences of that length, padded if need be, or keep the layer "
                    f"in float by an override of the operator {self.op!r}"
                )

    def changed(self, what: str) -> InputError:
        """What to say when a call is not the one that the plan was made for."""
        return InputError(
            f"{self.where} is called with {what}, which it was not when the model was prepared; call it as in eval "
            f"mode, or keep it in float by an override of the operator {self.op!r}"
        )


class _Running(Operators):
    """Runs the operators, and rounds what the plan has in codes."""

    def __init__(self, of: WrittenOut) -> None:
        self.of, self.number = of, 0
        # By rewrite and tensor, which is kept so that no other gets its number: a weight is rounded once for all steps.
        self.rounded: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def call(self, target: Any, *args: Any) -> Any:
        """Runs the next one."""
        if target is aten.dropout.default:
            return target(*args)  # in training alone: no graph has it
        part = self.of.parts.get(self.number)
        self.number += 1
        if part is None:
            return target(*args)
        if part.target is not target:
            raise self.of.changed("other arguments")
        result = target(*self._read(part, args))
        if isinstance(result, torch.Tensor):
            (site,) = part.results
            return result if site is None else site(result)
        return [each if site is None else site(each) for each, site in zip(result, part.results, strict=True)]

    def part(self, node: Any, index: int) -> Any:
        """As of `Operators`."""
        return node[index]

    def shape(self, node: Any) -> Sequence[int]:
        """As of `Operators`."""
        shape: Sequence[int] = node.shape
        return shape

    def _read(self, part: Part, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not part.operands:
            return args
        leaves, spec = pytree.tree_flatten(args)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        for place, rewrite in part.operands.items():
            leaves[places[place]] = self._rewritten(rewrite, leaves[places[place]])
        return pytree.tree_unflatten(leaves, spec)  # type: ignore[no-any-return]

    def _rewritten(self, rewrite: Rewrite, tensor: torch.Tensor) -> torch.Tensor:
        key = id(rewrite), id(tensor)
        if key not in self.rounded:
            self.rounded[key] = tensor, rewrite(tensor)
        return self.rounded[key][1]


def written_out(
    captured: CapturedModel,
    folded: CapturedModel,
    describe: Callable[[Node], str],
    part_of: Callable[[Node, Any], Part],
) -> dict[str, WrittenOut]:
    """The calls of a network that are written out in the graph that is planned, by the name of their node.

    Args:
        captured: with the calls.
        folded: the same written out.
        describe: says in words which node it is.
        part_of: what runs for a node of the written-out graph and its operator of ATen.
    """
    gone = _gone(captured, folded)
    parts: dict[str, dict[int, Part]] = {name: {} for name in gone}
    for made in folded.fx_graph.nodes:
        at, number = made.meta.get(MADE, ("", 0))
        if at in parts and made.name in folded.graph.by_name:
            parts[at][number] = part_of(folded.graph.by_name[made.name], made.target)
    nodes = {node.name: node for node in captured.fx_graph.nodes}
    return {
        name: WrittenOut(
            where=describe(node),
            op=node.op,
            target=nodes[name].target,
            steps=_steps(nodes[name]) if node.op in _LAYERS else None,
            parts=parts[name],
        )
        for name, node in gone.items()
    }


def names_of_parts(captured: CapturedModel, folded: CapturedModel) -> frozenset[str]:
    """The nodes of the written-out graph that are parts of calls."""
    gone, known = _gone(captured, folded), folded.graph.by_name
    made = (node for node in folded.fx_graph.nodes if node.meta.get(MADE, ("", 0))[0] in gone)
    return frozenset(node.name for node in made if node.name in known)


def _gone(captured: CapturedModel, folded: CapturedModel) -> dict[str, Node]:
    """The calls that the written-out graph no longer has."""
    there = folded.graph.by_name
    return {node.name: node for node in captured.graph.nodes if node.op in _WRITTEN_OUT and node.name not in there}


def _steps(layer: torch.fx.Node) -> int:
    given = named_arguments(layer.target, layer.args, layer.kwargs)
    shape: Sequence[int] = given["input"].meta["val"].shape
    return shape[time_axis(given)]
