"""How to search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitwright.nas.figures import SOUGHT
from bitwright.nas.sampling.registry import INFORMED, check_sampler
from bitwright.nas.standing import ACCURACY
from bitwright.quant.errors import InputError, unknown

LATENCY, PREDICTED = "latency_ms", "predicted_ms"


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search.

    Attributes:
        trials: different candidates to try, infeasible ones included.
        sampler: a name of `sampling.registry.SAMPLERS`.
        seed: of the sampler.
        objectives: names of `figures.SOUGHT`; accuracy goes the way of its metric, all others down.
        limits: the largest permitted value of figures, by name; the least of those that should be large.
        threads: of the runtime when latency is measured.
        table: measured kernels that latencies are predicted from, before anything is trained.
        batch: candidates that are asked for together and told together, so that the run can be repeated whatever their
            evaluations take; `trials` is rounded up to whole batches. None tells each as soon as it is known.
        figures: further figures to note of each candidate.
        weights: of several targets in a figure that counts, by name; None is the worst target.
        give_up: whether a candidate is given up when the good ends of its intervals do not reach the front.
        screened: whether no sampler proposes what the untrained stages refuse; such candidates are no trials then.
        rungs: shares of a training after which a candidate is scored and may be given up; none trains to the end.
    """

    trials: int
    sampler: str = "tpe"
    seed: int = 0
    objectives: tuple[str, ...] = ("accuracy", LATENCY)
    limits: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    table: Path | None = None
    batch: int | None = None
    figures: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    give_up: bool = True
    screened: bool = False
    rungs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"search objectives = {list(self.objectives)}; give at least one, each once")
        check_sampler(self.sampler, objectives=len(self.objectives))
        if self.batch is not None and self.batch < 1:
            raise InputError(f"search batch = {self.batch}; give at least 1, or leave it out")
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < each < 1 for each in self.rungs):
            raise InputError(f"search rungs = {list(self.rungs)}; give shares of a training between 0 and 1, ascending")
        if self.rungs and not (self.give_up and ACCURACY in self.objectives):
            raise InputError(
                f"search rungs = {list(self.rungs)} say when a candidate is given up for its accuracy; that needs "
                "give_up: true and accuracy among the objectives"
            )
        for name in (*self.objectives, *self.limits, *self.figures):
            if name not in SOUGHT:
                raise unknown("search figure", name, SOUGHT)
        if self.needs_prediction and self.table is None:
            raise InputError(f"search figure {PREDICTED!r} needs search.table; make one: bitwright measure kernels")

    @property
    def named(self) -> frozenset[str]:
        """All figures that somebody asks for."""
        return frozenset((*self.objectives, *self.limits, *self.figures))

    @property
    def needs_screen(self) -> bool:
        """Whether the sampler has to know what the untrained stages say of any candidate."""
        return self.screened or self.sampler == INFORMED

    @property
    def wants_latency(self) -> bool:
        """Whether anything has to be timed."""
        return LATENCY in self.named

    @property
    def needs_prediction(self) -> bool:
        """Whether a candidate has no score without a predicted latency."""
        return PREDICTED in self.objectives or PREDICTED in self.limits
