"""Applies fixes to a captured network until the linter has nothing more that one of them could remove.

Each step is checked before it is taken: the rewritten tensors and all results are compared with those before on
recorded and random inputs, the finding has to be gone, no worse one may come, and where the target has a cost model
the modelled time must not rise. What fails a check is refused with the reason.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.fixes.base import Fix, Settings, Site, fix_names, load_fix
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.modelled_time import ModelledTime, modelled_time
from bitwright.hw_constraints.source_diff import source_diff
from bitwright.hw_constraints.target_types import Capability, Target
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.parity import Inputs, Parity, TensorParity, compare
from bitwright.quant.plan import plan
from bitwright.quant.random_inputs import random_inputs
from bitwright.quant.rewrite import Refused

RANDOM_INPUTS = 2
# An error of a tenth of the signal's amplitude: below that, training again is not a touch-up any more.
FLOOR_DB = 20.0
ASK = "it is an approximation; ask for approximate fixes, too"


@dataclass(frozen=True, kw_only=True)
class AppliedFix:
    """One fix that was made.

    Attributes:
        fix: its name.
        summary: what it does.
        exact: whether the network computes the same as before, up to the order of additions.
        finding: what is gone.
        here: how the rewritten tensor compares with the one before.
        parity: how all results compare after the step that made it.
        diff: the change to make by hand, a unified diff of the user's file.
        time: modelled time of the network before and after the step; None without a cost model.
        together: how many fixes of this kind the step made; `parity` and `time` are about all of them.
    """

    fix: str
    summary: str
    exact: bool
    finding: Finding
    here: tuple[TensorParity, ...]
    parity: Parity
    diff: str
    time: tuple[ModelledTime, ModelledTime] | None = None
    together: int = 1


@dataclass(frozen=True, kw_only=True)
class RefusedFix:
    """One fix that was tried and not made.

    Attributes:
        fix: its name.
        finding: what stays.
        reason: why.
        approximation: how far off the results would be, where only that they are not exact stands in its way.
    """

    fix: str
    finding: Finding
    reason: str
    approximation: Parity | None = None


@dataclass(frozen=True, kw_only=True)
class FixedModel:
    """A network with its fixes.

    Attributes:
        captured: the rewritten network.
        applied: the fixes that were made, in order.
        refused: those that were tried and not made, with the reason.
        before: the findings at the start.
        after: the findings that are left.
        parity: the rewritten network against the original; None when nothing was changed.
    """

    captured: CapturedModel
    applied: tuple[AppliedFix, ...]
    refused: tuple[RefusedFix, ...]
    before: tuple[Finding, ...]
    after: tuple[Finding, ...]
    parity: Parity | None


def fix(
    captured: CapturedModel,
    target: Target,
    *,
    recorded: Sequence[Inputs] = (),
    approximate: bool = False,
    fixes: Iterable[str] | None = None,
) -> FixedModel:
    """Rewrites a network until no fix removes another finding; the network that was given stays as it was.

    Args:
        captured: the network, batch norms folded.
        target: the accelerator.
        recorded: real arguments of `forward`; random ones are added, and follow what is seen in them.
        approximate: also make fixes that change results; each says by how much.
        fixes: names of the fixes to consider; None for all.

    Raises:
        InputError: an unknown fix, a target that cannot lint, or recorded inputs that do not fit the network.
    """
    chosen = [load_fix(name) for name in (fix_names() if fixes is None else dict.fromkeys(fixes))]
    chosen.sort(key=lambda each: not each.exact)  # what can be had exactly is not approximated
    session = _Session(captured, target, recorded, approximate)
    before = session.findings
    while any(session.take(each) for each in chosen):
        pass
    changed = session.captured is not captured
    return FixedModel(
        captured=session.captured,
        applied=tuple(session.applied),
        refused=tuple(session.refused.values()),
        before=before,
        after=session.findings,
        parity=compare(captured, session.captured, session.inputs) if changed else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A rewrite of one or more places by one fix, not yet checked."""

    captured: CapturedModel
    sites: tuple[tuple[Site, Settings], ...]
    tensors: tuple[tuple[TensorRef, ...], ...] = field(default=())


class _Session:
    def __init__(
        self,
        captured: CapturedModel,
        target: Target,
        recorded: Sequence[Inputs],
        approximate: bool,
    ) -> None:
        self.captured = captured
        self.target = target
        self.approximate = approximate
        self.inputs = [*recorded, *random_inputs(captured, RANDOM_INPUTS, recorded=recorded)]
        self.applied: list[AppliedFix] = []
        self.refused: dict[tuple[str, str, str], RefusedFix] = {}
        self.tried: set[tuple[str, str, str, str]] = set()
        self.findings, self.time = self._look(captured)

    def take(self, chosen: Fix) -> bool:
        """Makes a fix wherever it applies, in the first way of it that passes the checks."""
        sites = list(self._sites(chosen))
        for turn in range(max((len(ways) for _, ways in sites), default=0)):
            here = [(site, ways[turn]) for site, ways in sites if turn < len(ways)]
            untried = [each for each in here if _attempt(chosen, *each) not in self.tried]
            if untried and self._take_one_way(chosen, untried):
                return True
        return False

    def _take_one_way(self, chosen: Fix, sites: Sequence[tuple[Site, Settings]]) -> bool:
        """At all places at once if that passes the checks, else one by one."""
        step = self._rewrite(chosen, sites)
        if step is None or self._accept(chosen, step):
            return step is not None
        if len(step.sites) == 1:
            return False
        alone = (self._rewrite(chosen, [each]) for each in step.sites)
        return any(each is not None and self._accept(chosen, each) for each in alone)

    def _sites(self, chosen: Fix) -> Iterator[tuple[Site, tuple[Settings, ...]]]:
        """Where a fix could remove a finding, and the ways that it has there."""
        graph, seen = self.captured.graph, set()
        for finding in self.findings:
            node = graph.by_name.get(finding.node)
            if node is None or node.name in seen or not chosen.answers(finding, node):
                continue
            site = Site(graph=graph, node=node, finding=finding, target=self.target)
            ways = chosen.variants(site)
            if not ways:
                self._refuse(chosen, site, f"{self.target.id} says nothing that it could go by")
            if any(_attempt(chosen, site, way) not in self.tried for way in ways):
                seen.add(node.name)
                yield site, ways

    def _rewrite(self, chosen: Fix, sites: Iterable[tuple[Site, Settings]]) -> _Step | None:
        function = getattr(importlib.import_module(f"bitwright.quant.passes.{chosen.rewrite}"), chosen.rewrite)
        captured, made = self.captured, []
        for site, settings in sites:
            if site.node.name not in captured.graph.by_name:
                continue  # an earlier place of this step took it along
            result = function(captured, site.node.name, **settings)
            if isinstance(result, Refused):
                self._refuse(chosen, site, result.reason, settings)
                continue
            captured = result
            made.append((site, settings))
        if not made:
            return None
        tensors = tuple(_comparable(self.captured.graph, captured.graph, site) for site, _ in made)
        return _Step(captured=captured, sites=tuple(made), tensors=tensors)

    def _accept(self, chosen: Fix, step: _Step) -> bool:
        """Checks a step; takes it or, for a single place, writes down why not."""
        inner = [ref for refs in step.tensors for ref in refs]
        parity = compare(self.captured, step.captured, self.inputs, inner=inner)
        reason = self._objection(chosen, parity)
        findings, time = (self.findings, self.time) if reason else self._look(step.captured)
        reason = reason or _left(self.findings, findings, step)
        if not reason and time and self.time and time.is_worse_than(self.time):
            reason = f"the modelled time rises from {self.time.us:.6g} to {time.us:.6g} us"
        if reason:
            if len(step.sites) == 1:
                site, settings = step.sites[0]
                self._refuse(chosen, site, reason, settings, parity if reason == ASK else None)
            return False
        for (site, settings), refs in zip(step.sites, step.tensors, strict=True):
            self.refused.pop((chosen.name, site.finding.rule, site.node.name), None)  # in another way it was
            here = tuple(each for each in parity.tensors if each.name in set(map(str, refs)))
            self.applied.append(
                AppliedFix(
                    fix=chosen.name,
                    summary=chosen.summary,
                    exact=parity.is_exact,
                    finding=site.finding,
                    here=here,
                    parity=parity,
                    diff=source_diff(site.node, chosen.by_hand(site, settings)),
                    time=(self.time, time) if self.time and time else None,
                    together=len(step.sites),
                )
            )
        self.captured, self.findings, self.time = step.captured, findings, time
        return True

    def _objection(self, chosen: Fix, parity: Parity) -> str:
        """Why the results do not allow the fix; empty when they do."""
        if not parity.is_sound:
            return f"not the same: {parity.reason()}"
        if parity.is_exact:
            return ""
        if chosen.exact:
            return f"meant to be exact: {parity.reason()}"
        if parity.sqnr < FLOOR_DB:
            return f"too far off: {parity.sqnr:.1f} dB, at least {FLOOR_DB:.0f} dB are asked for"
        return "" if self.approximate else ASK

    def _refuse(
        self,
        chosen: Fix,
        site: Site,
        reason: str,
        settings: Settings | None = None,
        approximation: Parity | None = None,
    ) -> None:
        key = chosen.name, site.finding.rule, site.node.name
        self.tried.add(_attempt(chosen, site, settings or {}))
        self.refused[key] = RefusedFix(
            fix=chosen.name, finding=site.finding, reason=reason, approximation=approximation
        )

    def _look(self, captured: CapturedModel) -> tuple[tuple[Finding, ...], ModelledTime | None]:
        """The findings of a network and its time, planned as the target asks for."""
        graph = captured.graph
        planned = plan(graph, self.target.scheme()) if Capability.SCHEME in self.target.capabilities else None
        return lint(graph, self.target, plan=planned), modelled_time(graph, self.target, planned)


def _attempt(chosen: Fix, site: Site, settings: Settings) -> tuple[str, str, str, str]:
    """One way of a fix at one place, which is not tried twice."""
    return chosen.name, site.finding.rule, site.node.name, repr(settings)


def _comparable(before: Graph, after: Graph, site: Site) -> tuple[TensorRef, ...]:
    """The first tensors, at the place of a fix or behind it, that both networks have."""
    waiting, seen = list(site.node.outputs), set(site.node.outputs)
    found = []
    while waiting:
        ref = waiting.pop(0)
        if ref in after.tensors and ref in after.producers:
            found.append(ref)
            continue
        behind = [out for node in before.consumers[ref] for out in node.outputs if out not in seen]
        seen.update(behind)
        waiting += behind
    return tuple(found)


_RANK = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def _left(before: Sequence[Finding], after: Sequence[Finding], step: _Step) -> str:
    """Why the findings do not allow a step; empty when its own are gone and what came is less bad."""
    there = {(each.rule, each.node) for each in after}
    rules = Counter(site.finding.rule for site, _ in step.sites)
    for site, _ in step.sites:
        rule = site.finding.rule
        was, now = (sum(each.rule == rule for each in findings) for findings in (before, after))
        if (rule, site.node.name) in there or now > was - rules[rule]:
            return f"the finding of {rule} stays"
    counts = [[sum(each.severity is rank for each in findings) for rank in _RANK] for findings in (before, after)]
    if counts[1] < counts[0]:
        return ""
    known = {(each.rule, each.node) for each in before}
    new = Counter(each.rule for each in after if (each.rule, each.node) not in known)
    return f"it brings other findings: {', '.join(f'{name} ({count})' for name, count in new.most_common(3))}"
