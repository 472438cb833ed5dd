"""Kernels that turn real values into codes and back, where those on both sides do not do it themselves."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import WEIGHTED, Family
from bitwright.hw_constraints.kernels.rules import FusionRules


def with_conversions(drafts: Sequence[Draft], graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    """Adds what turns values into codes and back where the kernels on both sides do not do it themselves."""
    result: list[Draft] = []
    stored_codes: set[str] = set()
    for item in graph.graph.inputs:
        if item.name in graph.coded:
            result.append(_conversion(Family.QUANTIZE, item.name, graph))
            stored_codes.add(item.name)
    for draft in drafts:
        if draft.family is Family.QUANTIZE:
            result.append(draft)
            stored_codes.add(draft.writes[0][0])
            continue
        if draft.format != "int8":
            result += _dequantized_weights(draft, graph, rules)
            result += _dequantized(draft, stored_codes, graph, rules)
        result.append(draft)
        value = draft.writes[0][0]
        if draft.writes_codes:
            stored_codes.add(value)
        elif value in graph.coded and draft.format != "int8":
            if rules.fuses(draft.family, draft.format, "quantize"):
                draft.epilogue.append("quantize")
            else:
                result.append(_conversion(Family.QUANTIZE, value, graph))
            stored_codes.add(value)
    for one in graph.results:
        if one is not None and one.value in stored_codes:
            result.append(_conversion(Family.DEQUANTIZE, one.value, graph))
    return result


def _dequantized(draft: Draft, stored_codes: set[str], graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    if rules.fuses(draft.family, draft.format, "dequantized_input"):
        return []
    values = dict.fromkeys(value for value, _, coded in draft.reads if coded and value in stored_codes)
    return [_conversion(Family.DEQUANTIZE, value, graph) for value in values]


def _dequantized_weights(draft: Draft, graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    """Codes of weights that a real-valued kernel reads, where the runtime does not convert them when it loads."""
    if rules.converts_weights_at_load or draft.family not in WEIGHTED:
        return []
    stored = [one.value for one in draft.members[0].operands if one is not None and not one.live and one.coded]
    draft.reads_stored_codes = bool(stored)
    return [_conversion(Family.DEQUANTIZE, value, graph) for value in stored]


def quantized(bound: Call, graph: CodedGraph) -> Draft:
    """What is left of a bound whose result is only read through codes."""
    draft = _conversion(Family.QUANTIZE, bound.outputs[0], graph)
    draft.reads = [(bound.live[0].value, draft.reads[0][1], False)]
    draft.members = [bound]
    return draft


def _conversion(family: Family, value: str, graph: CodedGraph) -> Draft:
    shape = graph.shape(value)
    op = "QuantizeLinear" if family is Family.QUANTIZE else "DequantizeLinear"
    return Draft(
        family=family,
        op=op,
        format="int8",
        reads=[(value, shape, family is Family.DEQUANTIZE)],
        writes=[(value, shape)],
        writes_codes=family is Family.QUANTIZE,
        inserted=f"{op}:{value}",
    )
