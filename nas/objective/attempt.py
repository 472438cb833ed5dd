"""A candidate on its way through the stages of the objective, on each target of the search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import torch

from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.figures import combined, is_more_better
from bitwright.nas.objective.sparse_blocks import has_zeros
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.standing import best_case, rival
from bitwright.nas.trained_graph import trained_graph
from bitwright.nas.workload import Workload
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import QuantScheme

Violations = tuple[Violation, ...]


class Side:
    """A candidate as one target sees it."""

    def __init__(self, attempt: Attempt, workload: Workload, *, alone: bool) -> None:
        self.attempt, self.workload = attempt, workload
        self.target = workload.target
        self.suffix = "" if alone else f"@{self.target.id}"
        self.artifact = attempt.setup.folder / "artifacts" / f"{attempt.candidate.key}{self.suffix}.onnx"

    @cached_property
    def scheme(self) -> QuantScheme:
        """The workload's scheme with the candidate's formats."""
        formats = self.attempt.setup.space.formats(self.attempt.candidate, self.attempt.model)
        return apply_block_formats(self.workload.scheme, self.target, formats)

    @cached_property
    def plan(self) -> QuantPlan:
        """Which tensor gets which format."""
        return plan(self.attempt.graph, self.scheme)


class Attempt:
    """One evaluation of a candidate."""

    def __init__(self, candidate: Candidate, setup: Setup) -> None:
        self.candidate, self.setup, self.workload = candidate, setup, setup.workload
        self.architecture = setup.space.architecture(candidate)
        everyone = (setup.workload, *setup.others)
        self.sides = tuple(Side(self, each, alone=len(everyone) == 1) for each in everyone)
        self.stage = ""
        self.figures: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.network: str | None = None
        self.twin: Result | None = None

    def through(self, stages: Iterable[tuple[str, Stage]]) -> Result:
        """The result after these stages, or after the first that ends it."""
        for name, stage in stages:
            violations, reason = self._run(name, stage)
            if violations:
                return self.result(Outcome.INFEASIBLE, violations=violations)
            if reason:
                return self.result(Outcome.FAILED, reason=f"{name}: {reason}")
            if self.twin is not None:
                break
            if beaten := self.beaten():
                return self.result(Outcome.BEATEN, reason=beaten)
        return self.result(Outcome.SCORED)

    def _run(self, name: str, stage: Stage) -> tuple[Violations, str]:
        """What a stage finds to refuse, or why it could not be carried out; both empty when all is well."""
        self.stage = name
        began = time.monotonic()
        try:
            violations = stage(self)
        except (InputError, MemoryError, RuntimeError) as error:  # RuntimeError: torch's own, also without memory
            return (), _said(error)
        finally:
            self.seconds[name] = round(time.monotonic() - began, 3)
        bad = next((key for key, value in self.figures.items() if not math.isfinite(value)), None)
        return violations, "" if bad is None else f"{bad} is {self.figures.pop(bad)}"

    def beaten(self) -> str:
        """Why it cannot reach the front any more; "" as long as it can, and for one whose scores are complete."""
        setup = self.setup
        if setup.standing is None or all(name in self.figures for name in setup.objectives):
            return ""
        best = best_case(self.figures, setup.objectives, setup.maximize, setup.standing, first_share=setup.first_share)
        found = rival(best, setup.standing)
        if found is None:
            return ""
        pairs = zip(setup.objectives, best, found, setup.maximize, strict=True)
        turned = [(name, -own if up else own, -theirs if up else theirs) for name, own, theirs, up in pairs]
        at_best = ", ".join(f"{name} {own:.5g}" for name, own, _ in turned)
        return f"at best {at_best}; another has {', '.join(f'{name} {theirs:.5g}' for name, _, theirs in turned)}"

    def result(self, outcome: Outcome, *, violations: Violations = (), reason: str = "") -> Result:
        """What is known now."""
        twin = self.twin
        return Result(
            key=self.candidate.key,
            values=dict(self.candidate.values),
            outcome=outcome,
            stage=self.stage,
            violations=violations,
            reason=reason,
            figures={**self.figures, **(twin.figures if twin else {})},
            seconds=self.seconds,
            network=self.network,
            same_as=twin.key if twin else None,
        )

    @cached_property
    def model(self) -> torch.nn.Module:
        """The network, with fresh or inherited weights until it is trained."""
        if self.setup.inherited is not None:
            return self.setup.inherited.network(self.candidate)
        return self.workload.build(self.architecture)

    @cached_property
    def sparsity(self) -> Mapping[str, str]:
        """Patterns of zeros by path of a module."""
        choose = getattr(self.setup.space, "sparsity", None)
        return {} if choose is None else dict(choose(self.candidate, self.model))

    @cached_property
    def graph(self) -> Graph:
        """The network without values, batch norms folded."""
        return self.setup.graph(self.architecture, self.model)

    @cached_property
    def valued_graph(self) -> Graph:
        """The network with the values that it has now, zeros of its patterns included, batch norms folded."""
        with has_zeros(self.model, self.sparsity):
            graph = trained_graph(self.model, self.workload.example(self.model))
            assert graph.load is not None
            values = {ref: graph.load(ref).copy() for ref in graph.tensors if graph.is_constant(ref)}
        return replace(graph, load=values.__getitem__)

    def note(self, name: str, by_side: Mapping[str, float], *, end: str = "") -> None:
        """Notes a figure of each target that has it (by `Side.suffix`), and the one that counts.

        Args:
            name: of the figure.
            by_side: values by suffix; a search on one target has only "".
            end: `_low` or `_high` where these are the ends of the figure's interval.
        """
        self.figures.update({f"{name}{end}{suffix}": value for suffix, value in by_side.items()})
        if by_side and "" not in by_side:
            up = is_more_better(name, higher_is_better=self.workload.higher_is_better)
            by_target = {suffix.removeprefix("@"): value for suffix, value in by_side.items()}
            self.figures[f"{name}{end}"] = combined(by_target, weights=self.setup.weights, higher_is_better=up)

    def beyond_limits(self, names: Iterable[str]) -> Violations:
        """Which of these figures are beyond what the recipe allows; the amount is relative to the limit."""
        found = []
        for name in names:
            if name not in self.setup.limits or name not in self.figures:
                continue
            value, limit = self.figures[name], self.setup.limits[name]
            over = (limit - value if self.setup.is_least(name) else value - limit) / (abs(limit) or 1.0)
            if over > 0:
                reason = f"{name} = {value:.6g}; the search's limit is {limit:.6g}"
                found.append(Violation(constraint=name, amount=over, reason=reason))
        return tuple(found)


Stage = Callable[[Attempt], Violations]


def _said(error: BaseException) -> str:
    """An error in one line of its own words; without words, which one it is."""
    words = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"no memory left: {words}" if words else "no memory left"
    return words or type(error).__name__
