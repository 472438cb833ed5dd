"""What accelerators refuse, and work and memory against the limits; nothing has been trained by then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.nas import costs
from bitwright.nas.finalists import hash_on_targets
from bitwright.nas.fingerprint import network_hash
from bitwright.nas.objective.attempt import Attempt, Side, Violations
from bitwright.nas.objective.sparse_blocks import dense_blocks
from bitwright.nas.result import ResultFiles, Violation
from bitwright.quant.capture import CaptureError


def lint_candidate(attempt: Attempt) -> Violations:
    """Refuses what an accelerator does not run, and zeros that no weight of a block can have or that save nothing."""
    refused = [violation for side in attempt.sides for violation in _lint(attempt, side)]
    patterns = sorted(set(attempt.sparsity.values()))
    for block, why in dense_blocks(attempt.model, attempt.sparsity).items():
        reason = f"{block} cannot be {attempt.sparsity[block]}: {why}"
        refused.append(Violation(constraint="sparsity", amount=1.0, reason=reason))
    targets = [side.target for side in attempt.sides]
    for pattern in patterns:
        if not any(_may_gain(each, pattern) for each in targets):
            names = " and ".join(each.id for each in targets)
            reason = f"zeros in {pattern} save nothing on {names}, whose description names no sparsity; allowed: dense"
            refused.append(Violation(constraint="sparsity", amount=1.0, reason=reason))
    return tuple(refused)


def _may_gain(target: Target, pattern: str) -> bool:
    """Whether zeros can save something: the target names the pattern, or has a cost model, whose figures tell."""
    return pattern in map(str, target.sparsity) or Capability.COST in target.capabilities


def _lint(attempt: Attempt, side: Side) -> Violations:
    try:
        findings = lint(attempt.graph, side.target, plan=side.plan)
    except CaptureError as error:
        findings = lint(None, side.target, capture_failures=[error.failure])
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for each in findings:
        if each.severity is Severity.ERROR:
            by_rule[each.rule].append(each)
    return tuple(
        Violation(constraint=f"lint.{rule}{side.suffix}", amount=len(each), reason=_explain(each))
        for rule, each in by_rule.items()
    )


def _explain(findings: Sequence[Finding]) -> str:
    first = findings[0]
    where = f" in {first.module_path}" if first.module_path else ""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.found}{where}; allowed: {first.allowed}{more}"


def count_costs(attempt: Attempt) -> Violations:
    """Work and memory against the limits; recognises a network that was scored under another candidate's name."""
    graph, sides = attempt.graph, attempt.sides
    attempt.figures["macs"] = costs.macs(graph)
    attempt.note("weight_bytes", {side.suffix: costs.weight_bytes(graph, side.plan) for side in sides})
    attempt.note("activation_bytes", {side.suffix: costs.activation_bytes(graph, side.plan) for side in sides})
    hashes = [network_hash(graph, side.plan) for side in sides]
    attempt.network = hash_on_targets(hashes, attempt.sparsity)
    attempt.twin = ResultFiles(attempt.setup.results).same_network(attempt.network, attempt.candidate)
    return attempt.beyond_limits(("macs", "weight_bytes", "activation_bytes"))
