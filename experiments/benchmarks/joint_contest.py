"""Searches that decide architecture, formats and zeros at once, and those that decide the architecture first.

Both take as many evaluations, propose with the same sampler and know the same latencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from bitwright.experiments.benchmarks.joint_costs import in_formats, part_costs, part_names
from bitwright.experiments.benchmarks.joint_networks import BLOCK_CHOICES, FLOAT, STAGES, TARGET, JointNetworks
from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.tabular_space import MAXIMIZE, OBJECTIVES
from bitwright.hw_constraints.target import load_target
from bitwright.nas import pareto
from bitwright.nas.block_choices import DENSE
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.sampling.known import Known
from bitwright.nas.sampling.registry import INFORMED, make_sampler
from bitwright.nas.space import Candidate, Parameter, SearchSpace, sample
from bitwright.nas.study import tell

JOINT, FLOAT_FIRST, INT8_FIRST = "joint", "architecture in float, then formats", "architecture in int8, then formats"
METHODS = (JOINT, FLOAT_FIRST, INT8_FIRST)
_CODE_COSTS = ("experiments.benchmarks.joint_costs", "experiments.benchmarks.joint_networks")
_CODE = (
    *_CODE_COSTS,
    "nas.sampling",
    "experiments.benchmarks.joint_contest",
    "experiments.benchmarks.cluttered_digits",
)

Whole = Callable[[Candidate], Candidate]


@dataclass(frozen=True, kw_only=True)
class JointContest:
    """One space of networks that both ways search.

    Attributes:
        name: of the contest.
        networks: the space with its weights.
        evaluations: of each way.
        latencies: the measured kernel table.
        folder: where everything is kept.
        pool: candidates that are looked at for a proposal.
        refuses_useless_zeros: whether patterns that the target's file does not know as saving time are not proposed.
    """

    name: str
    networks: JointNetworks
    evaluations: int
    latencies: Path
    folder: Path
    pool: int = 128
    refuses_useless_zeros: bool = True

    @cached_property
    def costs(self) -> Mapping[str, tuple[float, float]]:
        """Predicted milliseconds and multiply-accumulates of parts."""
        identity = f"{self.networks.architectures} {self.latencies.name}"
        return kept(
            self.folder, f"{self.name}-costs", identity, _CODE_COSTS, lambda: part_costs(self.networks, self.latencies)
        )

    def predicted_ms(self, candidate: Candidate) -> float:
        """Of a candidate of the joint space."""
        return self.known(candidate)["predicted_ms"]

    def known(self, candidate: Candidate) -> dict[str, float]:
        """What is known of a candidate of the joint space untrained, as `nas.objective.screen` would say it."""
        ms, macs = zip(*(self.costs[name] for name in part_names(candidate.values)), strict=True)
        return {"predicted_ms": math.fsum(ms), "macs": math.fsum(macs)}

    def found(self, method: str, seed: int) -> list[Candidate]:
        """The front of what a way evaluated, by accuracy and predicted latency; looked for once."""

        def look() -> dict[str, Any]:
            return {"asked": [dict(each.values) for each in self._searched(method, seed)]}

        identity = f"{method} {seed} {self.evaluations} {self.pool} {self.refuses_useless_zeros} {self.networks}"
        asked = kept(self.folder / "searches", f"{self.name}-{method}-{seed}".replace(" ", "-"), identity, _CODE, look)
        return self.front([Candidate(values) for values in asked["asked"]])

    def front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that no other beats in accuracy and predicted latency, each once, the fastest first."""
        different = list({each.key: each for each in candidates}.values())
        points = [(self.predicted_ms(each), -self.networks.accuracy(each)) for each in different]
        return [different[index] for index in sorted(pareto.non_dominated(points), key=lambda index: points[index])]

    def _searched(self, method: str, seed: int) -> list[Candidate]:
        if method == JOINT:
            return self._search(self.networks.space, lambda candidate: candidate, seed, self.evaluations)
        first = (FLOAT if method == FLOAT_FIRST else "int8",) * STAGES
        half = self.evaluations // 2
        architectures = self._search(
            self.networks.architectures, lambda candidate: in_formats(candidate.values, first), seed, half
        )
        chosen = self.front(architectures)

        def whole(candidate: Candidate) -> Candidate:
            values = {**chosen[int(candidate.values["architecture"])].values, **candidate.values}
            values.pop("architecture")
            return Candidate(self.networks.space.canonical(values))

        formats = DeclaredSpace(
            own=(Parameter(name="architecture", choices=tuple(range(len(chosen))), ordered=True),),
            block_choices=BLOCK_CHOICES,
        )
        return [*architectures, *self._search(formats, whole, seed, self.evaluations - half)]

    def _search(self, space: SearchSpace, whole: Whole, seed: int, evaluations: int) -> list[Candidate]:
        """Candidates of the joint space that a search of `space` evaluates, in order; `whole` is one for one of it."""
        known = Known(
            space=space, objectives=OBJECTIVES, screen=lambda each: self._screen(each, whole(each)), pool=self.pool
        )
        study = optuna.create_study(directions=["maximize" if up else "minimize" for up in MAXIMIZE])
        asked = []
        for told in range(evaluations):
            study.sampler = make_sampler(INFORMED, seed=seed, told=told, known=known)
            trial = study.ask()
            candidate = sample(space, trial)
            asked.append(whole(candidate))
            screened = self._screen(candidate, asked[-1])
            figures = {**screened.figures, "accuracy": self.networks.accuracy(asked[-1])}
            tell(study, trial, screened.model_copy(update={"outcome": Outcome.SCORED, "figures": figures}), OBJECTIVES)
        return asked

    def _screen(self, candidate: Candidate, whole: Candidate) -> Result:
        """As `nas.objective.screen` would know it; refused where zeros cost accuracy and save nothing."""
        zeros = {str(whole.values[f"sparsity_{stage}"]) for stage in range(STAGES)} - {DENSE}
        useless = sorted(zeros - self._saving) if self.refuses_useless_zeros else []
        refused = tuple(
            Violation(constraint="sparsity", amount=1.0, reason=f"zeros in {each} save no time on {TARGET}")
            for each in useless
        )
        return Result(
            key=candidate.key,
            values=dict(candidate.values),
            outcome=Outcome.INFEASIBLE if refused else Outcome.SCORED,
            stage="predict",
            violations=refused,
            figures=self.known(whole),
        )

    @cached_property
    def _saving(self) -> set[str]:
        """Patterns in which the target's file says that zeros save time."""
        return {str(each) for each in load_target(TARGET).sparsity}
