"""Operators that ONNX does not have and our exporter composes: recognised where the file says what they were.

Each function gets all calls that were one operator, the last of them first, and reads the arguments off them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network

Compose = Callable[[Network, list[Call], Call], Match | None]
COMPOSED: dict[str, Compose] = {}


def composes(*ops: str) -> Callable[[Compose], Compose]:
    """Registers a function for the operators that it recognises."""

    def register(function: Compose) -> Compose:
        COMPOSED.update(dict.fromkeys(ops, function))
        return function

    return register


def compose_whole_operators(network: Network) -> None:
    """Puts one call in the place of each group that was one operator of a kind that only exporters take apart."""
    for call in network.calls:
        op = network.origin(call).op
        if call.op == op or op not in COMPOSED or not network.is_present(call):
            continue
        group = network.group(call)
        if group[-1] is not call:
            continue
        match = COMPOSED[op](network, group, call)
        if match is not None and network.may_replace(call, match):
            network.replace(call, match)


def _entering(network: Network, group: list[Call]) -> list[str]:
    """The values from outside that a group computes with, constants that the exporter made left out."""
    made = {name for call in group for name in call.outputs}
    read = dict.fromkeys(name for call in group for name in call.operands if name not in made)
    return [name for name in read if not (network.is_constant(name) and network.draft.is_inner(name))]


def _match(network: Network, group: list[Call], op: str, **attributes: Any) -> Match:
    return Match(op=op, inputs=list(_entering(network, group)), attributes=attributes, consumed=group[:-1])


@composes("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_pool(network: Network, group: list[Call], last: Call) -> Match | None:
    op = network.origin(last).op
    return _match(network, group, op, output_size=network.shape(last.outputs[0])[-int(op[-2]) :])


@composes("mean")
def _mean(network: Network, group: list[Call], last: Call) -> Match | None:
    """Over the spatial dimensions it is a pool in our file; torch.onnx calls each such pool a mean."""
    if not network.draft.is_own or group[0].op not in (
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
    ):
        return None
    rank = len(network.shape(group[0].operands[0]))
    keep = len(network.shape(last.outputs[0])) == rank
    return _match(network, group, "mean", dim=tuple(range(2, rank)), keepdim=keep, dtype=None)


@composes("var", "std")
def _variance(network: Network, group: list[Call], last: Call) -> Match | None:
    """The factor behind the mean is n / (n - correction)."""
    mean = next((call for call in group if call.op == "mean"), None)
    factor = next(
        (call.attributes["other"] for call in group[::-1] if call.op == "mul" and "other" in call.attributes), None
    )
    if mean is None or factor is None:
        return None
    shape, dims = network.shape(mean.operands[0]), mean.attributes["dim"]
    n = math.prod(shape[d] or 1 for d in dims)
    keep = len(network.shape(last.outputs[0])) == len(shape)
    correction = round(n - n / factor) if factor else None
    return _match(network, group, network.origin(last).op, dim=dims, correction=correction, keepdim=keep)


@composes("pixel_unshuffle")
def _pixel_unshuffle(network: Network, group: list[Call], last: Call) -> Match | None:
    before, after = network.shape(group[0].operands[0])[2], network.shape(last.outputs[0])[2]
    return _match(network, group, "pixel_unshuffle", downscale_factor=(before or 1) // (after or 1))


@composes("channel_shuffle")
def _channel_shuffle(network: Network, group: list[Call], last: Call) -> Match | None:
    return _match(network, group, "channel_shuffle", groups=network.shape(group[0].outputs[0])[1])


@composes("stack")
def _stack(network: Network, group: list[Call], last: Call) -> Match | None:
    return _match(network, group, "stack", dim=last.attributes["dim"]) if last.op == "cat" else None


@composes("unbind")
def _unbind(network: Network, group: list[Call], last: Call) -> Match | None:
    """One selection for each index, in order."""
    same = {(tuple(call.operands), call.attributes.get("dim")) for call in group if call.op == "select"}
    if len(same) != 1 or [call.attributes.get("index") for call in group] != list(range(len(group))):
        return None
    outputs = [call.outputs[0] for call in group]
    attributes = {"dim": last.attributes["dim"]}
    return Match(op="unbind", inputs=last.inputs, attributes=attributes, consumed=group[:-1], outputs=outputs)


@composes("roll")
def _roll(network: Network, group: list[Call], last: Call) -> Match | None:
    """What lies behind the cut comes in at the front; both parts are halves of a split, or slices."""
    joins = [call for call in group if call.op == "cat"]
    parts = [call for call in group if call.op in ("split_with_sizes", "slice")]
    if not joins or len(joins) + len(parts) != len(group) or any(len(call.operands) != 2 for call in joins):
        return None
    dims = tuple(call.attributes["dim"] for call in joins)
    shifts = tuple(network.shape(call.operands[0])[dim] or 0 for call, dim in zip(joins, dims, strict=True))
    return _match(network, group, "roll", shifts=shifts, dims=dims)


@composes("slice_scatter", "select_scatter")
def _overwrite(network: Network, group: list[Call], last: Call) -> Match | None:
    cut = next((call for call in group if call.op == "split_with_sizes"), None)
    if cut is None or last.op != "cat" or len(cut.outputs) != 3:
        return None
    sizes, dim, op = cut.attributes["split_sizes"], cut.attributes["dim"], network.origin(last).op
    where = (
        {"index": sizes[0]} if op == "select_scatter" else {"start": sizes[0], "end": sizes[0] + sizes[1], "step": 1}
    )
    new = next(name for name in _entering(network, group) if name != cut.operands[0])
    return Match(op=op, inputs=[cut.operands[0], new], attributes={"dim": dim, **where}, consumed=group[:-1])


@composes("index")
def _index(network: Network, group: list[Call], last: Call) -> Match | None:
    """Several indices side by side: the dimensions that they stand for were moved to the front."""
    moved = next((call for call in group if call.op == "permute"), None)
    gathered = next((call for call in group if call.op == "GatherND"), None)
    if moved is None or gathered is None:
        return None
    indices = [name for name in _entering(network, group) if name != moved.operands[0]]
    inputs: list[str | None] = [moved.operands[0], *[None] * moved.attributes["dims"][0], *indices]
    return Match(op="index", inputs=inputs, consumed=group[:-1])


@composes("div", "floor_divide", "remainder")
def _rounded(network: Network, group: list[Call], last: Call) -> Match | None:
    """A quotient, and what rounds it."""
    quotient = next((call for call in group if call.op == "div"), None)
    if quotient is None or len(group) < 2:
        return None
    op, attributes = network.origin(last).op, dict(quotient.attributes)
    if op == "div":
        attributes["rounding_mode"] = "floor" if len(group) == 2 else "trunc"
    return Match(op=op, inputs=quotient.inputs, attributes=attributes, consumed=group[:-1])


@composes("square", "log1p")
def _of_one_operand(network: Network, group: list[Call], last: Call) -> Match | None:
    return _match(network, group, network.origin(last).op)
