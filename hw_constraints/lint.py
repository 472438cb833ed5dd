"""The linter: what in a network its accelerator will not run, or not run well, and where it is written.

One file in `rules/` is one rule, with its class under the name `RULE`; other packages add theirs through the entry
points `bitwright.rules`. Pure Python over `quant.graph`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.operators import CREATIONS
from bitwright.hw_constraints.source_focus import focus
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.errors import InputError, unknown
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan

if TYPE_CHECKING:  # importing capture would load torch
    from bitwright.quant.capture import CaptureFailure

ENTRY_POINTS = "bitwright.rules"
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, kw_only=True)
class LintContext:
    """What a rule can look at.

    Attributes:
        graph: the captured network; None when it could not be captured.
        target: the accelerator.
        plan: how the network is to be quantized, once that is decided.
        capture_failures: what stood in the way of capturing it.
    """

    graph: Graph | None
    target: Target
    plan: QuantPlan | None = None
    capture_failures: tuple[CaptureFailure, ...] = ()

    def computed_nodes(self) -> Iterator[tuple[Graph, Node]]:
        """The nodes whose result is not known before the network runs, each with the graph."""
        if self.graph is None:
            return
        known: set[TensorRef] = set()
        for node in self.graph.nodes:
            shape_alone = node.op in CREATIONS and all(
                None not in self.graph.tensors[ref].shape for ref in node.outputs
            )
            if shape_alone or all(ref in known or self.graph.is_constant(ref) for ref in node.tensors):
                known.update(node.outputs)
            else:
                yield self.graph, node

    def input_tensors(self) -> Iterator[tuple[Graph, TensorRef]]:
        """The network's inputs and incoming states, each with the graph."""
        if self.graph is not None:
            for ref in (*self.graph.inputs, *(incoming for incoming, _ in self.graph.state)):
                yield self.graph, ref


class Rule(Protocol):
    """One thing that the linter knows; `name` is its file's name, `summary` one line for lists of rules."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Looks at the network and yields what it finds."""


def finding_at(rule: str, node: Node, *, severity: Severity, found: str, allowed: str, suggestion: str) -> Finding:
    """A finding about an operator call, with the user's own line."""
    return Finding(
        rule=rule,
        severity=severity,
        node=node.name,
        found=found,
        allowed=allowed,
        suggestion=suggestion,
        source=node.source,
        focus=focus(node),
        module_path=node.module_path,
    )


@cache
def rule_names() -> tuple[str, ...]:
    """Names of all rules, without importing them.

    Raises:
        InputError: a name is registered twice.
    """
    own = {path.stem for path in (Path(__file__).parent / "rules").glob("*.py")} - {"__init__"}
    others = [point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    for name in others:
        if name in own or others.count(name) > 1:
            raise InputError(f"rule {name!r} is registered twice; uninstall one of the packages that bring it")
    return tuple(sorted([*own, *others]))


def load_rule(name: str) -> Rule:
    """Makes the rule of that name.

    Raises:
        InputError: there is none; the names that there are get listed.
    """
    if name not in rule_names():
        raise unknown("rule", name, rule_names())
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        return point.load()()  # type: ignore[no-any-return]
    return importlib.import_module(f"bitwright.hw_constraints.rules.{name}").RULE()  # type: ignore[no-any-return]


def lint(
    graph: Graph | None,
    target: Target,
    *,
    plan: QuantPlan | None = None,
    capture_failures: Iterable[CaptureFailure] = (),
    rules: Collection[str] | None = None,
) -> tuple[Finding, ...]:
    """Looks at a network through the eyes of an accelerator.

    Args:
        graph: the captured network; None when it could not be captured.
        target: the accelerator.
        plan: how it is to be quantized; rules about formats then speak about it, too.
        capture_failures: why the network, or a part of it, could not be captured.
        rules: names of the rules to apply; None for all.

    Returns:
        Findings, errors first, else in the order of the graph.

    Raises:
        InputError: an unknown rule, or a target that does not say enough to lint by.
    """
    target.require(Capability.LINT)
    context = LintContext(graph=graph, target=target, plan=plan, capture_failures=tuple(capture_failures))
    names = rule_names() if rules is None else tuple(dict.fromkeys(rules))
    findings = [finding for name in names for finding in load_rule(name).check(context)]
    position = {node.name: i for i, node in enumerate(graph.nodes)} if graph else {}
    return tuple(sorted(findings, key=lambda each: (_ORDER[each.severity], position.get(each.node, -1))))
