"""Memory layouts: which one each kernel works in, and the conversions that the runtime inserts between them."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.hw_constraints.kernels.coded_graph import CodedGraph
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import Family, Shape
from bitwright.hw_constraints.kernels.rules import ANY, ANY_BUT_BLOCKED, BLOCKED, PLAIN, FusionRules

_PICTURE = 4


def with_reorders(drafts: Sequence[Draft], graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    """Gives each kernel its layout and puts a reorder wherever a tensor is read in another one than it is kept in.

    A tensor is converted once for each layout that somebody reads it in.
    """
    kept: dict[str, set[str]] = {}
    coded: dict[str, bool] = {}
    result: list[Draft] = []
    for draft in drafts:
        reads, writes = _wanted(draft, rules, kept)
        draft.layout = writes
        for at, (value, shape, _) in enumerate(draft.reads):
            here = kept.setdefault(value, {PLAIN})
            reads = reads if at == 0 else writes  # of an addend
            if reads not in here and len(shape) == _PICTURE:
                result.append(_reorder(value, shape, here, reads, coded=coded.get(value, False)))
                here.add(reads)
        result.append(draft)
        for value, _ in draft.writes:
            kept[value] = {writes}
            coded[value] = draft.writes_codes or "quantize" in draft.epilogue
    for one in graph.results:
        if one is not None and PLAIN not in kept.get(one.value, {PLAIN}):
            shape = graph.shape(one.value)
            result.append(_reorder(one.value, shape, kept[one.value], PLAIN, coded=False))
    return result


def _wanted(draft: Draft, rules: FusionRules, kept: dict[str, set[str]]) -> tuple[str, str]:
    """The layouts that a kernel reads and writes."""
    layout = rules.layout(draft.family, draft.op, draft.format)
    if draft.reads_stored_codes and layout == BLOCKED:
        return PLAIN, PLAIN  # weights are put in blocks when the model is loaded
    pictures = [shape for _, shape, _ in draft.reads] + [shape for _, shape in draft.writes]
    if any(len(shape) != _PICTURE for shape in pictures):
        return PLAIN, PLAIN
    if layout in (ANY, ANY_BUT_BLOCKED):
        here = [kept.get(value, {PLAIN}) for value, _, _ in draft.reads]
        moved = sorted({one for layouts in here for one in layouts} - {PLAIN})
        if not moved or (moved[0] == BLOCKED and (layout == ANY_BUT_BLOCKED or not _fits_blocks(draft, rules))):
            return PLAIN, PLAIN
        layout = moved[0]
    elif layout == BLOCKED:
        if draft.family is not Family.DEPTHWISE and draft.reads[0][1][1] < rules.vector and draft.weight:
            return PLAIN, BLOCKED  # too few channels to read blocks
        if not _fits_blocks(draft, rules):
            return PLAIN, PLAIN
    return layout, layout


def _fits_blocks(draft: Draft, rules: FusionRules) -> bool:
    channels = [shape[1] for _, shape, _ in draft.reads]
    if draft.family in (Family.CONV, Family.POINTWISE, Family.DEPTHWISE):
        return channels[0] % rules.blocked_multiple == 0
    if draft.family is Family.GROUPED:
        groups = channels[0] // draft.weight[1]
        return draft.weight[1] % rules.vector == 0 and draft.weight[0] // groups % rules.vector == 0
    if draft.family is Family.ACTIVATION:
        return True  # computes what pads the last block along with the rest
    if draft.family is Family.ELEMENTWISE:  # the last block may be padded, but blocks are not broadcast
        return len({shape for _, shape, _ in draft.reads}) == 1 and not draft.weight
    return all(count % rules.vector == 0 for count in channels)


def _reorder(value: str, shape: Shape, kept: set[str], wanted: str, *, coded: bool) -> Draft:
    source = sorted(kept)[0]
    return Draft(
        family=Family.REORDER,
        op=f"{source}_to_{wanted}",
        format="int8" if coded else "float32",
        reads=[(value, shape, coded)],
        writes=[(value, shape)],
        writes_codes=coded,
        layout=wanted,
        inserted=f"reorder:{value}",
    )
