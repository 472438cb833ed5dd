"""Which operators of a file become one kernel, and whether it computes in codes."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.codes import BOUNDS, codes_do, coding, left_to_codes
from bitwright.hw_constraints.kernels.composites import SILU, composite, silu_of
from bitwright.hw_constraints.kernels.conversions import quantized
from bitwright.hw_constraints.kernels.describe import attributes_of, family_of, weight_shape
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import Family
from bitwright.hw_constraints.kernels.rules import FusionRules

_BINARY = frozenset({"add", "mul", "sub"})


def fused(graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    """The kernels of a network without what lies between them, in an order in which they can run."""
    drafts: list[Draft] = []
    taken: set[int] = set()
    for call in graph.calls:
        if id(call) in taken:
            continue
        draft = composite(graph, call, rules) or _draft(graph, call, rules, taken)
        taken.update(id(member) for member in draft.members)
        if draft.family is Family.ATTENTION:
            drafts = [one for one in drafts if not any(member in draft.members for member in one.members)]
        if left_to_codes(graph, draft, rules):
            drafts.append(quantized(call, graph))
        elif call.op.lower() not in rules.free:
            drafts.append(draft)
    return _in_order(drafts, graph)


def _draft(graph: CodedGraph, call: Call, rules: FusionRules, taken: set[int]) -> Draft:
    family = family_of(graph, call)
    in_codes = _reads_codes(call) and rules.works_in_codes(call.op, call.text("mode"))
    if in_codes:
        draft = _chain(graph, call, family, "int8", rules, taken)
        if draft.writes_codes or rules.fuses(family, "int8", "dequantize"):
            return draft
    return _chain(graph, call, family, "float32", rules, taken)


def _reads_codes(call: Call) -> bool:
    return bool(call.live) and all(operand.coded for operand in call.live)


def _chain(
    graph: CodedGraph, call: Call, family: Family, number_format: str, rules: FusionRules, taken: set[int]
) -> Draft:
    """The kernel that begins with an operator: it takes in what follows as long as the runtime fuses it."""
    shapes = tuple(graph.shape(value) for value in call.outputs)
    draft = Draft(
        family=family,
        op=call.op,
        format=number_format,
        reads=[(operand.value, graph.shape(operand.value), operand.coded) for operand in call.live],
        writes=list(zip(call.outputs, shapes, strict=True)),
        weight=weight_shape(graph, call),
        attributes=attributes_of(graph, call, family),
        members=[call],
    )
    while len(draft.writes) == 1:
        value = draft.writes[0][0]
        product = _silu_behind(graph, draft, rules)
        if product is not None:
            draft.take_silu(graph.readers[value], product)
            continue
        follower = graph.sole_reader(value)
        if follower is None or id(follower) in taken or not _takes(graph, draft, follower, rules):
            break
        if draft.family in (Family.VIEW, Family.COPY):
            attributes = dict(attributes_of(graph, follower, draft.family))
            draft.take_move(follower, graph.shape(follower.outputs[0]), attributes)
            continue
        draft.take(follower, [(one.value, graph.shape(one.value), one.coded) for one in follower.live])
    draft.writes_codes = draft.format == "int8" and draft.writes[0][0] in graph.coded
    if draft.format == "int8":
        draft.attributes = tuple(sorted((*draft.attributes, *coding(graph, draft, rules))))
    if draft.writes_codes or draft.format == "int8":
        draft.epilogue = [op for op in draft.epilogue if op not in BOUNDS or not draft.writes_codes]
        if not draft.writes_codes:
            draft.epilogue.append("dequantize")
    return draft


def _silu_behind(graph: CodedGraph, draft: Draft, rules: FusionRules) -> Call | None:
    """The product that ends `x * sigmoid(x)`, where x is the kernel's result and both are fused into the kernel."""
    value = draft.writes[0][0]
    readers = graph.readers.get(value, [])
    if len(readers) != 2 or value in graph.coded or graph.is_result(value):
        return None
    if not rules.fuses(draft.family, draft.format, SILU, behind_add=draft.adds):
        return None
    return next((product for reader in readers if (product := silu_of(graph, reader, rules))), None)


def _takes(graph: CodedGraph, draft: Draft, follower: Call, rules: FusionRules) -> bool:
    value, op = draft.writes[0][0], follower.op.lower()
    through_codes = value in graph.coded
    if draft.family in (Family.VIEW, Family.COPY):
        merged = draft.family if draft.family is Family.VIEW else draft.op.lower()
        return op in rules.epilogues.get(f"{merged}/{draft.format}", frozenset())
    if through_codes and not (
        draft.format == "int8" and rules.fuses(draft.family, "int8", f"requantize+{op}") and _reads_codes(follower)
    ):
        return False
    if draft.format == "int8" and op in BOUNDS:
        return rules.fuses(draft.family, "int8", op) or codes_do(graph, follower)
    if op == "batchnormalization":
        return rules.fuses(draft.family, draft.format, op)
    named = draft.op != "Conv"  # also a family's name, whose rules change behind an addition
    of_operator = named and op in rules.epilogues.get(f"{draft.op.lower()}/{draft.format}", frozenset())
    if not through_codes and not of_operator and not rules.fuses(draft.family, draft.format, op, behind_add=draft.adds):
        return False
    others = [operand for operand in follower.live if operand.value != value]
    if op in _BINARY:
        if draft.epilogue and not rules.fuses(draft.family, draft.format, f"activation+{op}"):
            return False
        same = [operand for operand in others if graph.shape(operand.value) == graph.shape(value)]
        return len(others) == 1 and len(same) == 1 and op not in draft.epilogue
    return not others


def _in_order(drafts: list[Draft], graph: CodedGraph) -> list[Draft]:
    """Sorted so that each comes behind what it reads: a fused addend may stand later in the file."""
    position = {id(call): index for index, call in enumerate(graph.calls)}
    return sorted(_once(drafts), key=lambda draft: max(position[id(member)] for member in draft.members))


def _once(drafts: list[Draft]) -> list[Draft]:
    """Equal views of one tensor of real values are made once; of codes runtimes make them as often as they stand."""
    seen: dict[tuple[object, ...], Draft] = {}
    for draft in drafts:
        views = draft.family is Family.VIEW and draft.format == "float32"
        key = (draft.op, draft.attributes, tuple(draft.reads), draft.writes[0][1]) if views else (id(draft),)
        seen.setdefault(key, draft)
    return list(seen.values())
