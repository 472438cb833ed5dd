"""What scales and zero points of 8-bit codes mean for the kernels that read and write them."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.describe import bounds_of
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import Family
from bitwright.hw_constraints.kernels.rules import FusionRules

BOUNDS = frozenset({"relu", "clip"})  # writing codes does what these do
_MOVES_CODES = frozenset({Family.CONCAT, Family.POOL, Family.COPY, Family.VIEW, Family.RESIZE})
_ROUNDING = 1e-5  # scales are float32


def coding(graph: CodedGraph, draft: Draft, rules: FusionRules) -> list[tuple[str, int]]:
    """What the codes' scales and zero points mean for the work.

    Operators that only move codes have to compute them anew where scales differ; some runtimes do so, too, wherever a
    zero point is not 0.
    """
    found = []
    moves = draft.family in _MOVES_CODES
    values = [value for value, _, _ in draft.reads] + [value for value, _ in draft.writes if draft.writes_codes]
    qparams = {graph.qparams(value) for value in values} - {None}
    if moves and len(qparams) > 1 and draft.writes[0][0] not in graph.quantized_ahead:
        found.append(("rescale", 1))
    if moves and rules.zero_points_matter and any(zero for _, zero in filter(None, qparams)):
        found.append(("zero_point", 1))
    return found


def left_to_codes(graph: CodedGraph, draft: Draft, rules: FusionRules) -> bool:
    """Whether a bound that stands alone vanishes because its result is only read through codes."""
    call = draft.members[0]
    if call.op.lower() not in BOUNDS or len(draft.members) > 1 or not rules.bounds_left_to_codes:
        return False
    readers = graph.readers.get(call.outputs[0], [])
    return all(one.coded for reader in readers for one in reader.live if one.value == call.outputs[0]) and codes_do(
        graph, call
    )


def codes_do(graph: CodedGraph, bound: Call) -> bool:
    """Whether the codes behind relu or clip hold nothing that these would cut off."""
    qparams = graph.qparams(bound.outputs[0])
    if qparams is None:
        return False
    scale, zero = qparams
    low, high = bounds_of(graph, bound)
    lowest, highest = graph.code_range(bound.outputs[0])
    return (lowest - zero) * scale >= low and (highest - zero) * scale <= high * (1 + _ROUNDING)
