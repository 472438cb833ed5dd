"""The linter: what in a network its accelerator will not run, or not run well, and where it is written.

One file in `rules/` is one rule, with its class under the name `RULE`; other packages add theirs through the entry
points `bitwright.rules`. Pure Python over `quant.graph`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.extension_point import ExtensionPoint
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan

if TYPE_CHECKING:  # importing capture would load torch
    from bitwright.quant.capture import CaptureFailure

RULES = ExtensionPoint(kind="rule", package="bitwright.hw_constraints.rules", marker="RULE", group="bitwright.rules")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class Rule(Protocol):
    """One thing that the linter knows; its class docstring says what it looks at and why.

    Attributes:
        name: its file's name.
        summary: one line for lists of rules.
        bad: a line or two of a user's code at which it speaks.
        good: what to write instead.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    bad: ClassVar[str]
    good: ClassVar[str]

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Looks at the network and yields what it finds."""


def rule_names() -> tuple[str, ...]:
    """Names of all rules, without importing them.

    Raises:
        InputError: a name is registered twice.
    """
    return RULES.names()


def load_rule(name: str) -> Rule:
    """Makes the rule of that name.

    Raises:
        InputError: there is none; the names that there are get listed.
    """
    return RULES.load(name)()  # type: ignore[no-any-return]


def summaries() -> dict[str, str]:
    """What each rule is about, in a line, by its name."""
    return {name: load_rule(name).summary for name in rule_names()}


def explain(name: str) -> str:
    """What a rule knows, with an example, as plain text.

    Raises:
        InputError: there is no such rule.
    """
    rule = load_rule(name)
    knows = inspect.cleandoc(type(rule).__doc__ or "")
    parts = [f"{name}: {rule.summary}", knows]
    parts += [
        f"{title}:\n" + "\n".join(f"    {line}" for line in code.splitlines())
        for title, code in (("It speaks at", rule.bad), ("Write instead", rule.good))
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def lint(
    graph: Graph | None,
    target: Target,
    *,
    plan: QuantPlan | None = None,
    capture_failures: Iterable[CaptureFailure] = (),
    unused_modules: Iterable[str] = (),
    ranges: Mapping[TensorRef, tuple[float, float]] | None = None,
    cost_us: Mapping[str, float] | None = None,
    rules: Collection[str] | None = None,
) -> tuple[Finding, ...]:
    """Looks at a network through the eyes of an accelerator.

    Args:
        graph: the captured network; None when it could not be captured.
        target: the accelerator.
        plan: how it is to be quantized; rules about formats then speak about it, too.
        capture_failures: why the network, or a part of it, could not be captured.
        unused_modules: modules with parameters that take no part in any result.
        ranges: (smallest, largest) value of tensors, where calibration has seen them.
        cost_us: modelled microseconds by the node's name; findings then say how much time is at stake.
        rules: names of the rules to apply; None for all.

    Returns:
        Findings, errors first, else in the order of the graph.

    Raises:
        InputError: an unknown rule, or a target that does not say enough to lint by.
    """
    target.require(Capability.LINT)
    context = LintContext(
        graph=graph,
        target=target,
        plan=plan,
        capture_failures=tuple(capture_failures),
        unused_modules=tuple(unused_modules),
        ranges=ranges or {},
    )
    names = rule_names() if rules is None else tuple(dict.fromkeys(rules))
    costs = cost_us or {}
    findings = [
        replace(finding, target=target.id, cost_us=costs.get(finding.node))
        for name in names
        for finding in load_rule(name).check(context)
    ]
    position = {node.name: i for i, node in enumerate(graph.nodes)} if graph else {}
    return tuple(sorted(findings, key=lambda each: (_ORDER[each.severity], position.get(each.node, -1))))
