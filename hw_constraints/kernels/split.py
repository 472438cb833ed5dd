"""An ONNX file as the kernels that a runtime runs for it: what fuses, in which format, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from bitwright.hw_constraints.kernels.coded_graph import Call, CodedGraph
from bitwright.hw_constraints.kernels.composites import SILU, attention_of, silu_of
from bitwright.hw_constraints.kernels.describe import attributes_of, bounds_of, family_of, weight_shape
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.kernel import WEIGHTED, Family, Kernel, Shape
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.layouts import with_reorders
from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, read_onnx

_BOUNDS = frozenset({"relu", "clip"})  # writing codes does what these do
_MOVES_CODES = frozenset({Family.CONCAT, Family.POOL, Family.COPY, Family.VIEW, Family.RESIZE})
_ROUNDING = 1e-5  # scales are float32
_BINARY = frozenset({"add", "mul", "sub"})


@dataclass(frozen=True, kw_only=True)
class PlacedKernel:
    """A kernel and the place in the network where it runs.

    Attributes:
        kernel: what runs.
        layers: names of the values that it computes, the last one is its result; in our own exports they say which
            tensors of the user's network these are.
        replaces: `type:value` of each operator of the file that it stands for; empty for what the runtime inserts.
    """

    kernel: Kernel
    layers: tuple[str, ...]
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Split:
    """A network as kernels.

    Attributes:
        runtime: the backend's name.
        kernels: in an order in which they can run.
        inputs: shapes of the network's arguments.
        outputs: shapes of its results.
    """

    runtime: str
    kernels: tuple[PlacedKernel, ...] = field(repr=False)
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def split(model: Path | bytes | onnx.ModelProto | OnnxGraph, runtime: str, rules: FusionRules | None = None) -> Split:
    """Splits a network without running it.

    Args:
        model: float, or with QuantizeLinear/DequantizeLinear.
        runtime: the backend's name.
        rules: what fuses there; None takes what was found on the known version.

    Raises:
        InputError: it is no ONNX model, has sizes that are not static, or the runtime's rules are not known.
    """
    graph = CodedGraph(_graph(model))
    rules = rules or known_rules(runtime)
    drafts = with_reorders(_with_conversions(_fused(graph, rules), graph, rules), graph, rules)
    inputs = tuple(graph.shape(item.name) for item in graph.graph.inputs)
    outputs = tuple(graph.shape(result.value) for result in graph.results if result)
    return Split(runtime=runtime, kernels=tuple(map(_placed, drafts)), inputs=inputs, outputs=outputs)


def _graph(model: Path | bytes | onnx.ModelProto | OnnxGraph) -> OnnxGraph:
    if isinstance(model, OnnxGraph):
        return model
    if isinstance(model, bytes):
        return OnnxGraph(onnx.load_model_from_string(model), f"model of {len(model)} bytes")
    return OnnxGraph(model, model.graph.name) if isinstance(model, onnx.ModelProto) else read_onnx(Path(model))


def _placed(draft: Draft) -> PlacedKernel:
    return PlacedKernel(kernel=draft.kernel(), layers=tuple(draft.layers), replaces=tuple(draft.replaces))


# Fusion.


def _fused(graph: CodedGraph, rules: FusionRules) -> list[Draft]:
    drafts: list[Draft] = []
    taken: set[int] = set()
    for call in graph.calls:
        if id(call) in taken:
            continue
        draft = _composite(graph, call, rules) or _draft(graph, call, rules, taken)
        taken.update(id(member) for member in draft.members)
        if draft.family is Family.ATTENTION:
            drafts = [one for one in drafts if not any(member in draft.members for member in one.members)]
        if _left_to_codes(graph, draft, rules):
            drafts.append(_quantized(call, graph))
        elif call.op.lower() not in rules.free:
            drafts.append(draft)
    return _in_order(drafts, graph)


def _left_to_codes(graph: CodedGraph, draft: Draft, rules: FusionRules) -> bool:
    """Whether a bound that stands alone vanishes because its result is only read through codes."""
    call = draft.members[0]
    if call.op.lower() not in _BOUNDS or len(draft.members) > 1 or not rules.bounds_left_to_codes:
        return False
    readers = graph.readers.get(call.outputs[0], [])
    return all(one.coded for reader in readers for one in reader.live if one.value == call.outputs[0]) and _codes_do(
        graph, call
    )


def _composite(graph: CodedGraph, call: Call, rules: FusionRules) -> Draft | None:
    """`x * sigmoid(x)`, or `softmax(Q K^T) V`, as one kernel, where the runtime makes one of it."""
    attention = attention_of(graph, call, rules)
    if attention is not None:
        return _attention(graph, attention, rules)
    product = silu_of(graph, call, rules)
    if product is None:
        return None
    source, result = call.live[0], product.outputs[0]
    shape = graph.shape(source.value)
    in_codes = source.coded and result in graph.coded
    draft = Draft(
        family=Family.ACTIVATION,
        op=SILU,
        format="int8" if in_codes else "float32",
        reads=[(source.value, shape, source.coded)],
        writes=[(result, shape)],
        members=[call, product],
        writes_codes=in_codes,
    )
    if in_codes:
        draft.attributes = tuple(_coding(graph, draft, rules))
    return draft


def _attention(graph: CodedGraph, calls: tuple[Call, ...], rules: FusionRules) -> Draft:
    scores, last = calls[0], calls[-1]
    values = next(one for one in last.live if graph.maker.get(one.value) not in calls)
    draft = Draft(
        family=Family.ATTENTION,
        op="Attention",
        format="float32",
        reads=[(one.value, graph.shape(one.value), one.coded) for one in (*scores.live, values)],
        writes=[(last.outputs[0], graph.shape(last.outputs[0]))],
        members=list(calls),
    )
    makers = [graph.maker.get(value) for value, _, _ in draft.reads]
    moved = [maker for maker in makers if maker is not None and maker.op == "Transpose"]
    if len(moved) == len(makers) and all(graph.sole_reader(maker.outputs[0]) for maker in moved):
        draft.reads = [
            (maker.live[0].value, shape, coded) for maker, (_, shape, coded) in zip(moved, draft.reads, strict=True)
        ]
        draft.members = [*moved, *draft.members]
        draft.attributes = (("transposed", 1),)
    follower = graph.sole_reader(last.outputs[0])
    if follower is not None and follower.op == "Transpose" and rules.fuses(Family.ATTENTION, "float32", "transpose"):
        draft.take(follower, [])
        draft.writes = [(follower.outputs[0], graph.shape(follower.outputs[0]))]
    return draft


def _draft(graph: CodedGraph, call: Call, rules: FusionRules, taken: set[int]) -> Draft:
    family = family_of(graph, call)
    in_codes = _reads_codes(call) and call.op.lower() in rules.in_codes
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
        draft.attributes = tuple(sorted((*draft.attributes, *_coding(graph, draft, rules))))
    if draft.writes_codes or draft.format == "int8":
        draft.epilogue = [op for op in draft.epilogue if op not in _BOUNDS or not draft.writes_codes]
        if not draft.writes_codes:
            draft.epilogue.append("dequantize")
    return draft


def _coding(graph: CodedGraph, draft: Draft, rules: FusionRules) -> list[tuple[str, int]]:
    """What the codes' scales and zero points mean for the work.

    Operators that only move codes have to compute them anew where scales differ; some runtimes do so, too, wherever a
    zero point is not 0.
    """
    found = []
    moves = draft.family in _MOVES_CODES
    values = [value for value, _, _ in draft.reads] + [value for value, _ in draft.writes if draft.writes_codes]
    qparams = {graph.qparams(value) for value in values} - {None}
    if moves and len(qparams) > 1:
        found.append(("rescale", 1))
    if moves and rules.zero_points_matter and any(zero for _, zero in filter(None, qparams)):
        found.append(("zero_point", 1))
    return found


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
    views = (Family.VIEW, Family.COPY)
    if (
        through_codes
        and draft.family not in views
        and not (
            draft.format == "int8" and rules.fuses(draft.family, "int8", f"requantize+{op}") and _reads_codes(follower)
        )
    ):
        return False
    if draft.format == "int8" and op in _BOUNDS:
        return rules.fuses(draft.family, "int8", op) or _codes_do(graph, follower)
    if draft.family is Family.VIEW or draft.op == "Transpose":
        merged = draft.family if draft.family is Family.VIEW else "transpose"
        return op in rules.epilogues.get(f"{merged}/{draft.format}", frozenset())
    if op == "batchnormalization":
        return rules.fuses(draft.family, draft.format, op)
    if not through_codes and not rules.fuses(draft.family, draft.format, op, behind_add=draft.adds):
        return False
    others = [operand for operand in follower.live if operand.value != value]
    if op in _BINARY:
        if draft.epilogue and not rules.fuses(draft.family, draft.format, f"activation+{op}"):
            return False
        same = [operand for operand in others if graph.shape(operand.value) == graph.shape(value)]
        return len(others) == 1 and len(same) == 1 and op not in draft.epilogue
    return not others


def _codes_do(graph: CodedGraph, bound: Call) -> bool:
    """Whether the codes behind relu or clip hold nothing that these would cut off."""
    qparams = graph.qparams(bound.outputs[0])
    if qparams is None:
        return False
    scale, zero = qparams
    low, high = bounds_of(graph, bound)
    lowest, highest = graph.code_range(bound.outputs[0])
    return (lowest - zero) * scale >= low and (highest - zero) * scale <= high * (1 + _ROUNDING)


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


# Between formats.


def _with_conversions(drafts: Sequence[Draft], graph: CodedGraph, rules: FusionRules) -> list[Draft]:
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


def _quantized(bound: Call, graph: CodedGraph) -> Draft:
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
