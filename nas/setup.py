"""What scores depend on besides the candidate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.nas.figures import is_more_better
from bitwright.nas.space import SearchSpace, Value, hash_of
from bitwright.nas.standing import Standing
from bitwright.nas.workload import Inherited, Workload
from bitwright.quant.graph import Graph

if TYPE_CHECKING:
    import torch

    from bitwright.nas.latency import PredictLatency, Reference


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that scores depend on besides the candidate; travels to workers once.

    Attributes:
        space: what candidates are chosen from.
        workload: network, data and task.
        folder: where artefacts and trained weights are kept, shared by all candidates.
        references: what latencies are measured against, by runtime; none when nobody asks for latency.
        limits: the largest permitted value of figures, by name; the least of those that should be large.
        table: measured kernels that latencies are predicted from; None when nobody asks for that.
        prediction_needed: whether a candidate whose latency cannot be predicted has no score; else it is measured.
        others: the same task on further targets, which every candidate has to run on, too.
        weights: of the targets in a figure that counts, by name; None is the worst target.
        wanted: names of figures that cost something and that somebody asks for.
        inherited: a trained supernet, whose weights candidates begin with; None begins with fresh ones.
        objectives: names of figures, and the direction of each in `maximize`.
        rungs: shares of a training after which a candidate is scored, and given up where it cannot reach the front.
        standing: what a candidate has to beat; None evaluates it to its end.
    """

    space: SearchSpace
    workload: Workload
    folder: Path
    references: Mapping[str, Reference] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    table: Path | None = None
    prediction_needed: bool = False
    others: tuple[Workload, ...] = ()
    weights: Mapping[str, float] | None = None
    wanted: frozenset[str] = frozenset()
    inherited: Inherited | None = None
    objectives: tuple[str, ...] = ()
    maximize: tuple[bool, ...] = ()
    rungs: tuple[float, ...] = ()
    standing: Standing | None = None
    _predictors: list[PredictLatency] = field(default_factory=list, init=False, repr=False, compare=False)
    _graphs: dict[str, Graph] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def results(self) -> Path:
        """Where results are written, by candidate."""
        return self.folder / "results"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graphs": {}, "_predictors": []}  # worked out anew where it arrives

    def against(self, standing: Standing | None) -> Setup:
        """The same for a candidate that has to beat this; what was captured and read is shared."""
        other = copy.copy(self)
        object.__setattr__(other, "standing", standing)
        return other

    def is_least(self, name: str) -> bool:
        """Whether a limit on this figure is the least permitted value."""
        return is_more_better(name, higher_is_better=self.workload.higher_is_better)

    @property
    def first_share(self) -> float:
        """What the latency that counts has of the first target's at least, as a factor.

        All of it where the worst target counts, its weight among those that are measured where the mean does, nothing
        where it is not measured.
        """
        measured = [each.target.id for each in (self.workload, *self.others) if each.runtime is not None]
        if self.workload.runtime is None:
            return 0.0
        if self.weights is None:
            return 1.0
        return self.weights[self.workload.target.id] / sum(self.weights[target] for target in measured)

    @property
    def predict(self) -> PredictLatency | None:
        """Latency by the table, which is read once a process.

        Raises:
            InputError: the table is missing, damaged or empty.
        """
        if self.table is None:
            return None
        if not self._predictors:
            from bitwright.nas.latency import predicted_latency

            self._predictors.append(predicted_latency(self.table))
        return self._predictors[0]

    def graph(self, architecture: Mapping[str, Value], model: torch.nn.Module) -> Graph:
        """The network as a graph without values; architectures that were captured before are looked up.

        Raises:
            CaptureError: the network cannot be captured.
        """
        from bitwright.nas.trained_graph import trained_graph

        key = hash_of(dict(architecture))
        if key not in self._graphs:
            self._graphs[key] = replace(trained_graph(model, self.workload.example(model)), load=None)
        return self._graphs[key]
