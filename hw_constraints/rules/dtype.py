"""A number format that the accelerator does not compute in: of the network itself, or asked for by the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_about, finding_at
from bitwright.hw_constraints.operators import MULTIPLICATIONS
from bitwright.hw_constraints.placement import Place, is_excepted
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, Node, TensorInfo
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import QParamsSpec, ScaleKind

# What networks are trained in and quantizers start from, whatever the accelerator then computes in.
_STARTING_POINT = "float32"
# Written as x + 3, clipped to [0, 6], times 1/6: the ranges between follow from the operand's, and no plan needs to
# reach them.
_RANGES_FOLLOW = frozenset({"hardsigmoid"})


class Dtype:
    """Speaks where a foreign type first appears, and about each planned format that is not permitted."""

    name: ClassVar[str] = "dtype"
    summary: ClassVar[str] = "a number format that the accelerator does not compute in"
    bad: ClassVar[str] = "x = x * torch.linspace(0, 1, 8, dtype=torch.float64)"
    good: ClassVar[str] = "x = x * torch.linspace(0, 1, 8)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each origin of a foreign type and each foreign planned format."""
        yield from self._inputs(context)
        for graph, node in context.computed_nodes():
            yield from self._arising(context, graph, node)
            if context.plan is not None:
                yield from self._planned(context, context.plan, graph, node)
                yield from self._left_in_float(context, context.plan, graph, node)

    def _inputs(self, context: LintContext) -> Iterator[Finding]:
        accepted = _accepted(context)
        for graph, ref in context.input_tensors():
            info = graph.tensors[ref]
            if _is_foreign(info, accepted):
                yield finding_about(
                    self.name,
                    graph,
                    ref,
                    severity=Severity.ERROR,
                    found=f"input {ref} is {info.dtype}",
                    allowed=", ".join(accepted),
                    suggestion=f"pass {ref} as {_STARTING_POINT}",
                )

    def _arising(self, context: LintContext, graph: Graph, node: Node) -> Iterator[Finding]:
        accepted = _accepted(context)
        foreign = [info for ref in node.outputs if _is_foreign(info := graph.tensors[ref], accepted)]
        flows_in = any(_is_foreign(graph.tensors[ref], accepted) for ref in node.tensors if not graph.is_constant(ref))
        if foreign and not flows_in:
            yield finding_at(
                self.name,
                node,
                severity=Severity.ERROR,
                found=f"{node.op} makes {foreign[0].dtype}",
                allowed=", ".join(accepted),
                suggestion=f"keep it in {_STARTING_POINT}: register constants as {_STARTING_POINT}, drop .double()",
            )

    def _planned(self, context: LintContext, plan: QuantPlan, graph: Graph, node: Node) -> Iterator[Finding]:
        numerics = context.target.numerics
        # The constants of operators that only add or scale are kept as activations are.
        weights = numerics.weights_of(node.op) + (() if node.op in MULTIPLICATIONS else numerics.activations)
        cases = [("weights", plan.weights[ref], weights) for ref in node.tensors if ref in plan.weights]
        first_read = [ref for ref in node.tensors if ref in graph.inputs and graph.consumers[ref][0] is node]
        cases += [
            ("activations", plan.activations[ref], numerics.activations)
            for ref in (*first_read, *node.outputs)
            if ref in plan.activations
        ]
        for what, asked, permitted in cases:
            if any(_covers(each, asked) for each in permitted):
                continue
            wider = next((each for each in permitted if _holds_codes_of(each, asked)), None)
            if wider is not None:
                name = wider.format.name
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{what} of {node.op} planned as {asked.format.name}, which runs as {name}",
                    allowed=_or(permitted),
                    suggestion=f"use all of {name}: it takes the same time here",
                )
            else:
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.ERROR,
                    found=f"{what} of {node.op} planned as {describe_spec(asked)}",
                    allowed=_or(permitted),
                    suggestion=f"plan its {what} as {permitted[0].format.name}"
                    + (", or keep the layer in float" if context.target.numerics.float_formats else ""),
                )

    def _left_in_float(self, context: LintContext, plan: QuantPlan, graph: Graph, node: Node) -> Iterator[Finding]:
        target, why = context.target, plan.kept_float.get(node.name)
        if target.numerics.float_formats or not why:
            return
        decomposition = target.operators.decomposed.get(node.op)
        # Places, and types that networks are not trained in, have findings of their own.
        is_told = context.is_place(node.outputs[0]) or graph.tensors[node.outputs[0]].dtype != _STARTING_POINT
        if is_excepted(node, plan) or (node.op in target.operators.quantized and not is_told):
            on_the_host = context.place(node) is Place.HOST
            yield finding_at(
                self.name,
                node,
                severity=Severity.ERROR,
                found=f"{node.op} is planned in float ({why})" + (" and runs on the host" if on_the_host else ""),
                allowed=f"{_or(target.numerics.activations)}: {target.id} has no floating point",
                suggestion="plan it in one of these, or leave it out of the exported part",
            )
        elif decomposition and node.op not in _RANGES_FOLLOW:
            parts = ", ".join(decomposition.parts)
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} is planned as one, and runs as {parts}: what passes between them has no format",
                allowed="a planned format for every tensor: there is no floating point",
                suggestion=f"write it as {parts}, so that the plan reaches the tensors between them",
            )


def describe_spec(spec: QParamsSpec) -> str:
    """`int8 symmetric per_channel`, with what differs from the usual."""
    words = [spec.format.name, "symmetric" if spec.symmetric else "asymmetric", spec.granularity.value]
    if spec.narrow_range:
        words.append("narrow range")
    if spec.scale_kind is not ScaleKind.FLOAT32:
        words.append(f"{spec.scale_kind} scales")
    if spec.block_size:
        words.append(f"blocks of {spec.block_size}")
    if spec.dynamic:
        words.append("dynamic")
    return " ".join(words)


def _or(permitted: tuple[QParamsSpec, ...]) -> str:
    return " or ".join(describe_spec(each) for each in permitted)


def _holds_codes_of(permitted: QParamsSpec, asked: QParamsSpec) -> bool:
    """Whether `asked` uses fewer codes of the same stored type, so that the hardware computes with them as its own."""
    wide, narrow = permitted.format, asked.format
    if not isinstance(wide, IntFormat) or not isinstance(narrow, IntFormat):
        return False
    fits = narrow.signed is wide.signed and _stored_bits(narrow) == _stored_bits(wide) and narrow.bits < wide.bits
    return fits and _covers(permitted, replace(asked, format=wide, narrow_range=permitted.narrow_range))


def _stored_bits(fmt: IntFormat) -> int:
    """The width of the artefact's tensors that hold such codes; a runtime chooses its kernel by that."""
    return next(width for width in (4, 8, 16, 32) if fmt.bits <= width)


def _covers(permitted: QParamsSpec, asked: QParamsSpec) -> bool:
    """Whether hardware made for `permitted` also takes `asked`, which may use less of its freedom."""
    return (
        permitted.format == asked.format
        and (asked.symmetric or not permitted.symmetric)
        and asked.has_scales_within(permitted)
        and (asked.narrow_range or not permitted.narrow_range)
    )


def _accepted(context: LintContext) -> tuple[str, ...]:
    return tuple(dict.fromkeys([_STARTING_POINT, *(fmt.name for fmt in context.target.numerics.float_formats)]))


def _is_foreign(info: TensorInfo, accepted: tuple[str, ...]) -> bool:
    return (info.is_floating or info.dtype.startswith("complex")) and info.dtype not in accepted


RULE = Dtype
