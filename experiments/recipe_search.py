"""A recipe's section about the search."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bitwright.experiments.recipe_section import Chosen, Count, Section
from bitwright.experiments.recipe_training import Train
from bitwright.experiments.search_supernet import Supernet


class SearchSpace(Chosen):
    """What the search may vary: a registered space with its choices, or `entry() -> SearchSpace` of the user's own."""


Figure = Literal[
    "accuracy", "latency_ms", "predicted_ms", "modelled_ms", "modelled_uj", "macs", "weight_bytes", "activation_bytes",
    "naswot", "synflow", "inherited_accuracy",
]  # fmt: skip


class SearchLimits(Section):
    """The largest permitted value of a figure, the least of one that should be large; beyond it is infeasible."""

    accuracy: float | None = None
    inherited_accuracy: float | None = None
    naswot: float | None = None
    synflow: float | None = None
    macs: Annotated[float, Field(gt=0)] | None = None
    weight_bytes: Annotated[float, Field(gt=0)] | None = None
    activation_bytes: Annotated[float, Field(gt=0)] | None = None
    predicted_ms: Annotated[float, Field(gt=0)] | None = None
    modelled_ms: Annotated[float, Field(gt=0)] | None = None
    modelled_uj: Annotated[float, Field(gt=0)] | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None


class Search(Section):
    """Looks for better networks: architecture × formats; infeasible candidates die in the linter, untrained.

    Attributes:
        space: what may be varied of the recipe's model.
        trials: different candidates to try, infeasible ones included.
        sampler: who proposes them: one of Optuna's, or `informed`, which screens candidates and models only the rest.
        objectives: accuracy is the metric of `evaluate`; costs should be small.
        limits: what a candidate must keep.
        figures: further figures to note of each candidate.
        targets: further targets on which every candidate has to run; latency is measured on all that something here
            runs.
        weights: of the targets, in the mean over those that have a figure; without them the worst target counts.
        train: how each feasible candidate is trained; null leaves its weights as they are built or inherited.
        supernet: all candidates trained at once in shared weights, which each begins with.
        finalists: how each candidate of the front is trained from scratch at the end, without inherited weights; its
            score then stands beside the searched one, and its recipe trains it so. Null leaves them as searched.
        give_up: whether a candidate is given up when even the good ends of its intervals do not reach the front.
        screened: whether what the untrained stages refuse is never proposed; such candidates are no trials then.
        rungs: shares of a training, such as [0.25, 0.5], after which a candidate is scored in float and given up where
            even with the gain that others had from there on it does not reach the front.
        earlier: folders of runs that have searched this space before: their best candidates are tried first, and
            `informed` learns from all.
        table: measured kernels (`measure kernels`) that latencies on the recipe's own target are predicted from: what
            is too slow even at the fast end of its interval is refused untrained.
        workers: processes of this machine that evaluate; 0 evaluates in the search's own process.
        scheduler: address of a Dask scheduler whose workers evaluate in place of this machine's.
        batch: candidates that are asked for and told together, so that a search with several workers can be repeated;
            without it each is told as soon as it is known.
        storage: `postgresql://host/database` where a team shares studies, under the recipe's name; without it the study
            is SQLite in the run's folder. Credentials are libpq's own: PGUSER, PGPASSWORD, ~/.pgpass.
    """

    space: SearchSpace
    trials: Count = 24
    sampler: Literal["cmaes", "gp", "informed", "nsga2", "nsga3", "random", "tpe"] = "tpe"
    objectives: Annotated[tuple[Figure, ...], Field(min_length=1)] = ("accuracy", "latency_ms")
    figures: tuple[Figure, ...] = ()
    targets: tuple[str, ...] = ()
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = None
    limits: SearchLimits = SearchLimits()
    train: Train | None = Train(epochs=2)
    supernet: Supernet | None = None
    finalists: Train | None = None
    give_up: bool = True
    screened: bool = False
    rungs: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    earlier: tuple[str, ...] = ()
    table: str | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    scheduler: str | None = None
    batch: Count | None = None
    storage: str | None = None

    @model_validator(mode="after")
    def _rungs_are_passed(self) -> Self:
        if not self.rungs:
            return self
        if self.train is None:
            raise ValueError("rungs are shares of a training, and train is null; leave one of them out")
        last = (self.train.epochs - 1) / self.train.epochs
        if self.rungs[-1] > last:
            raise ValueError(
                f"rungs = {list(self.rungs)}: a training of {self.train.epochs} epochs pauses after each but the last; "
                + (f"give shares up to {last:.3g}" if last else "train longer")
            )
        return self

    @field_validator("scheduler")
    @classmethod
    def _is_an_address(cls, scheduler: str | None) -> str | None:
        if scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://\S+:\d+", scheduler):
            raise ValueError("give a Dask scheduler's address, such as tcp://head:8786 or tls://head:8786")
        return scheduler

    @field_validator("storage")
    @classmethod
    def _names_no_password(cls, storage: str | None) -> str | None:
        if storage is None:
            return None
        if not storage.startswith("postgresql://"):
            raise ValueError("give postgresql://host/database, or leave it out for SQLite in the run's folder")
        if re.search(r"^postgresql://[^/@]*:[^?]*@|[?&]\w*password=", storage):
            raise ValueError("a password in a recipe is kept and shown: set PGPASSWORD, or write it to ~/.pgpass")
        return storage
