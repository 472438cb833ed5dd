"""Costs of thousands of networks from those of a few dozen: a chain of parts costs the sum of its parts.

What a part costs hangs on its own decisions and on how many channels come in. So only as many networks are captured,
linted and split into kernels as it takes to see each part once in each of its forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.predict.from_table import load_predictor
from bitwright.hw_constraints.predict.planned_model import planned_model
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.target import load_target
from bitwright.nas.space import Candidate, Value
from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run of modules in one of its forms.

    Attributes:
        module: path of the module that holds them; "" is all that no other part holds.
        decided_by: what its costs follow from.
    """

    module: str
    decided_by: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is known of a network untrained: predicted latency, multiply-accumulates, rules that refuse it."""

    ms: float = 0.0
    macs: float = 0.0
    refused: frozenset[str] = frozenset()

    def __add__(self, other: Cost) -> Cost:
        return Cost(ms=self.ms + other.ms, macs=self.macs + other.macs, refused=self.refused | other.refused)


@dataclass(kw_only=True)
class PartCosts:
    """Costs by part.

    Attributes:
        build: a network of an architecture.
        parts: of an architecture, one for each module, the same modules always.
        example: arguments of `forward`.
        latencies: the measured kernel table.
        target: whose linter is asked; latencies are those of x86 int8, whatever it is.
    """

    build: Callable[[Mapping[str, Value]], nn.Module]
    parts: Callable[[Mapping[str, Value]], tuple[Part, ...]]
    example: tuple[Any, ...]
    latencies: Path
    target: str
    _costs: dict[Part, Cost] = field(default_factory=dict, init=False)

    def covering(self, candidates: Sequence[Candidate]) -> Iterable[Candidate]:
        """Makes the costs of all candidates known, and returns them."""
        missing = {part for each in candidates for part in self.parts(each.values)} - self._costs.keys()
        ranked = sorted(candidates, key=lambda each: each.key)  # mixed, so that each brings many new parts
        predictor = load_predictor(self.latencies)
        for each in ranked:
            if len(missing & set(self.parts(each.values))) >= min(2, len(missing)) > 0:
                self._costs.update(self.by_part(each.values, predictor))
                missing -= self._costs.keys()
        for each in ranked:
            if missing & set(self.parts(each.values)):
                self._costs.update(self.by_part(each.values, predictor))
                missing -= self._costs.keys()
        return candidates

    def of(self, values: Mapping[str, Value]) -> Cost:
        """The costs of a network all of whose parts were seen."""
        return sum((self._costs[part] for part in self.parts(values)), start=Cost())

    def by_part(self, values: Mapping[str, Value], predictor: LatencyPredictor) -> dict[Part, Cost]:
        """The costs of the parts of a network that is captured for it."""
        network = self.build(values).eval()
        graph = fold_batch_norm(capture(network, self.example)).graph
        predicted = predictor.network(
            predictor.split(planned_model(graph, plan(graph, load_target("x86-vnni").scheme())))
        )
        target = load_target(self.target)
        findings = lint(graph, target, plan=plan(graph, target.scheme()))
        parts = self.parts(values)
        costs = {part: Cost() for part in parts}
        for layer in predicted.layers:
            where = layer.layers[0].partition("@")[0] if layer.layers else ""
            costs[_part(parts, where)] += Cost(ms=layer.us / 1e3)
        costs[_part(parts, "")] += Cost(ms=sum(predicted.overheads.values()) / 1e3)
        for node in graph.nodes:
            costs[_part(parts, node.outputs[0].module_path)] += Cost(macs=graph.macs(node))
        for each in findings:
            if each.severity is Severity.ERROR:
                costs[_part(parts, each.module_path or "")] += Cost(refused=frozenset({each.rule}))
        return costs


def _part(parts: Sequence[Part], module: str) -> Part:
    """The part that holds a module."""
    held = (part for part in parts if part.module and f"{module}.".startswith(f"{part.module}."))
    return next(held, next(part for part in parts if not part.module))
