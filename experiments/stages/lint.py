"""Looks at the network through the eyes of the target, before any time goes into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import FindingRecord, LintResult
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.hw_constraints.lint_report.report import Entry
    from bitwright.quant.graph import Graph


def lint_model(context: Context) -> LintResult:
    """Lints the network whole, or else each region that can be captured, and says what stands in the way of the rest.

    What the user's own comments take back is kept apart and does not count.
    """
    from bitwright.experiments.lint_command import capture_for_lint, lint_captured
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.hw_constraints.lint import rule_names
    from bitwright.hw_constraints.lint_report.report import Status, review

    model, target = context.model(), context.bench.target
    captured = capture_for_lint(model, context.bench.example(model))
    findings = lint_captured(captured, target, scheme=scheme_of(context.recipe, target))
    report = review(findings, files=captured.files, known_rules=rule_names())
    operators = [node.op for graph in captured.graphs for node in graph.nodes]
    return LintResult(
        findings=tuple(record_of(each) for each in report.entries if each.status is Status.NEW),
        ignored=tuple(record_of(each) for each in report.entries if each.status is Status.IGNORED),
        notices=tuple(map(str, report.notices)),
        operators=len(operators),
        macs=Figure(
            value=sum(map(_static_macs, captured.graphs)),
            unit="MAC",
            origin="modelled",
            source="counted in the captured graph, from its shapes",
        ),
        unverified=tuple(map(str, target.leaned_on(operators))),
    )


def _static_macs(graph: Graph) -> int:
    """Of the calls with fixed shapes; of others nobody knows before the network runs."""
    fixed = (
        node
        for node in graph.nodes
        if all(None not in graph.tensors[ref].shape for ref in (*node.tensors, *node.outputs))
    )
    return sum(map(graph.macs, fixed))


def record_of(entry: Entry) -> FindingRecord:
    """A finding as it stands in the record."""
    finding = entry.finding
    cost = finding.cost_us
    return FindingRecord(
        rule=finding.rule,
        severity=finding.severity.value,
        node=finding.node,
        module_path=finding.module_path,
        found=finding.found,
        allowed=finding.allowed,
        suggestion=finding.suggestion,
        source=str(finding.source) if finding.source else "",
        text=finding.source.text if finding.source else "",
        focus=finding.focus,
        calls=entry.calls,
        cost=None
        if cost is None
        else Figure(value=cost, unit="µs", origin="modelled", source=f"cost model of {finding.target}"),
        reason=entry.reason,
    )


STAGE = Stage(
    name="lint",
    run=lint_model,
    result=LintResult,
    needs=("train",),
    reads=("model", "data", "example_inputs", "target", "calibrate", "quantize"),
    code=("bitwright.hw_constraints", "bitwright.quant"),
)
