"""What a fix is, and how one is found by name. Torch-free: the rewrite is imported when it is applied.

A new fix is one file in this folder with a module-level `FIX`; third parties register an object of the same kind
through the entry-point group `bitwright.fixes`. Each is tested by the contract suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.extension_point import ExtensionPoint
from bitwright.quant.graph import Graph, Node


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a fix is to be applied.

    Attributes:
        graph: the network.
        node: the call that the finding speaks about.
        finding: what is to go.
        target: the accelerator.
    """

    graph: Graph
    node: Node
    finding: Finding
    target: Target

    def shape(self, position: int = 0) -> tuple[int | None, ...]:
        """The shape of one of the node's tensors."""
        return self.graph.tensors[self.node.tensors[position]].shape


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What to change in the source.

    Attributes:
        expression: what to write in place of the call, with `{x}` for its tensor, `{call}` for what is called and
            `{index}`, `{value}` for the parts of an assignment; empty when it takes more than an expression.
        note: what else to change; becomes a comment above the line.
    """

    expression: str = ""
    note: str = ""


Settings = Mapping[str, Any]


def no_settings(site: Site) -> tuple[Settings, ...]:
    """For rewrites that take nothing but the place."""
    return ({},)


@dataclass(frozen=True, kw_only=True)
class Fix:
    """One way to make a finding go.

    Attributes:
        name: its file's name.
        summary: one line for lists of fixes.
        exact: whether the network computes the same afterwards, up to the order of additions.
        rules: the rules whose findings it may remove.
        operators: at calls of these operators.
        rewrite: the function of `bitwright.quant.passes.REWRITE`, called with the network, the node and the settings.
        variants: what the rewrite is told about the place and the target, in the order in which to try; none where it
            has nothing to do there.
        by_hand: what to write in the source instead.
    """

    name: str
    summary: str
    exact: bool
    rules: frozenset[str]
    operators: frozenset[str]
    rewrite: str
    by_hand: Callable[[Site, Settings], ByHand]
    variants: Callable[[Site], tuple[Settings, ...]] = no_settings

    def answers(self, finding: Finding, node: Node) -> bool:
        """Whether it was made for such a finding."""
        return finding.rule in self.rules and node.op in self.operators


FIXES = ExtensionPoint(kind="fix", package="bitwright.hw_constraints.fixes", marker="FIX", group="bitwright.fixes")


def fix_names() -> tuple[str, ...]:
    """Names of all fixes, without importing them."""
    return FIXES.names()


def load_fix(name: str) -> Fix:
    """The fix of that name.

    Raises:
        InputError: there is none; the names that there are get listed.
    """
    fix: Fix = FIXES.load(name)
    return fix
