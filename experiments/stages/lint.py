"""Looks at the captured network through the eyes of the target, before any time goes into it."""

from __future__ import annotations

from bitwright.experiments.record import Figure
from bitwright.experiments.results import FindingRecord, LintResult
from bitwright.experiments.stage import Context, Stage
from bitwright.hw_constraints.finding import Finding


def lint_model(context: Context) -> LintResult:
    """Captures the network and lints it; a network that cannot be captured is itself a finding."""
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.hw_constraints.lint import lint
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.plan import plan

    model, target = context.model(), context.bench.target
    unverified = tuple(map(str, target.unverified()))
    try:
        graph = fold_batch_norm(capture(model, context.bench.example(model))).graph
    except CaptureError as error:
        findings = lint(None, target, capture_failures=[error.failure])
        no_macs = _macs(0)
        return LintResult(findings=tuple(map(record_of, findings)), operators=0, macs=no_macs, unverified=unverified)
    findings = lint(graph, target, plan=plan(graph, scheme_of(context.recipe, target)))
    return LintResult(
        findings=tuple(map(record_of, findings)),
        operators=len(graph.nodes),
        macs=_macs(sum(map(graph.macs, graph.nodes))),
        unverified=unverified,
    )


def _macs(count: int) -> Figure:
    return Figure(value=count, unit="MAC", origin="modelled", source="counted in the captured graph, from its shapes")


def record_of(finding: Finding) -> FindingRecord:
    """A finding as it stands in the record."""
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
    )


STAGE = Stage(
    name="lint",
    run=lint_model,
    result=LintResult,
    needs=("train",),
    reads=("model", "data", "example_inputs", "target", "calibrate", "quantize"),
    code=("bitwright.hw_constraints", "bitwright.quant"),
)
