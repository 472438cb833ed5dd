"""The tables that samplers are scored on: networks with shared weights on handwritten digits, latencies of a table.

Accuracies are inherited from a supernet, latencies summed from the measured kernel table (predicted, and marked so by
the figure's name), refusals are the linter's and a limit's. None of them was looked at while samplers were made: those
were tuned on `tabular_landscapes` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bitwright.experiments.benchmarks.kept import kept
from bitwright.experiments.benchmarks.narrow_networks import NarrowNet, narrow_space
from bitwright.experiments.benchmarks.tabular_costs import Part, PartCosts
from bitwright.experiments.benchmarks.tabular_space import Table
from bitwright.experiments.datasets.digits import Settings as DigitsSettings
from bitwright.experiments.datasets.digits import open_digits
from bitwright.experiments.supernet_task import DataTask
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.elastic.built import BuiltElastic
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.sampling.grid import Grid
from bitwright.nas.space import Candidate, Parameter, Value
from bitwright.nas.supernet import InheritedAccuracy, SupernetSettings, train_supernet

# What else decides a table stands in its identity.
_CODE = (
    "nas.supernet.sandwich",
    "nas.supernet.recalibration",
    "experiments.benchmarks.tabular_costs",
    "experiments.benchmarks.narrow_networks",
    "experiments.models.elastic_layers",
)
_BATCH, _SCORED = 64, 400


@dataclass(frozen=True, kw_only=True)
class Networks:
    """A family of networks that becomes a table.

    Attributes:
        name: of the table.
        space: its candidates.
        build: a network of an architecture.
        parts: what a network's costs are the sum of; see `tabular_costs`.
        size: pixels of the pictures.
        shared: how the weights are trained.
        target: whose linter refuses.
        most_macs: the limit, as a quantile over all candidates; 1 is none.
    """

    name: str
    space: DeclaredSpace
    build: Callable[[Mapping[str, Value]], nn.Module]
    parts: Callable[[Mapping[str, Value]], tuple[Part, ...]]
    size: int
    shared: SupernetSettings
    target: str = "x86-vnni"
    most_macs: float = 1.0

    @property
    def example(self) -> tuple[torch.Tensor]:
        """Arguments of `forward`."""
        return (torch.zeros(1, 3, self.size, self.size),)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All of them."""
        grid = Grid(self.space)
        return [grid.candidate(places) for places in grid.everything()]

    def table(self, latencies: Path, folder: Path) -> Table:
        """The table; what was found before is not looked for again.

        Args:
            latencies: the measured kernel table.
            folder: where everything is kept.

        Raises:
            InputError: there is no such kernel table.
        """
        identity = f"{self.name} {self.space} {self.size} {self.shared} {self.target} {self.most_macs} {latencies.name}"
        rows = kept(folder, self.name, identity, _CODE, lambda: self._rows(latencies, folder / self.name))
        results = {key: Result.model_validate(row) for key, row in rows.items()}
        return Table(name=self.name, space=self.space, results=results)

    def _rows(self, latencies: Path, folder: Path) -> dict[str, dict[str, object]]:
        costs = PartCosts(
            build=self.build, parts=self.parts, example=self.example, latencies=latencies, target=self.target
        )
        known = {each.key: costs.of(each.values) for each in costs.covering(self.candidates)}
        limit = math.inf
        if self.most_macs < 1:
            limit = float(np.quantile([each.macs for each in known.values()], self.most_macs))
        accuracy = self._inherited(folder)
        found = {}
        for each in self.candidates:
            cost, figures = known[each.key], {"predicted_ms": known[each.key].ms, "macs": known[each.key].macs}
            refused = [Violation(constraint=f"lint.{rule}", amount=1.0, reason=rule) for rule in cost.refused]
            if cost.macs > limit:
                reason = f"macs = {cost.macs:.6g}; the search's limit is {limit:.6g}"
                refused.append(Violation(constraint="macs", amount=cost.macs / limit - 1, reason=reason))
            outcome = Outcome.INFEASIBLE if refused else Outcome.SCORED
            if not refused:
                figures["accuracy"] = accuracy(each)
            result = Result(
                key=each.key, values=dict(each.values), outcome=outcome, stage="table", figures=figures,
                violations=tuple(refused), network=each.key,
            )  # fmt: skip
            found[each.key] = result.model_dump(mode="json")
        return found

    def _inherited(self, folder: Path) -> InheritedAccuracy:
        data = open_digits(DigitsSettings(size=self.size))
        task = DataTask(data=data, read=lambda batch: (batch[0],), batch=_BATCH, samples=_SCORED)
        with torch.random.fork_rng():
            torch.manual_seed(self.shared.seed)
            elastic = BuiltElastic(self.space, self.build, example=self.example)
        train_supernet(elastic, task, self.shared, folder)
        return InheritedAccuracy(elastic=elastic, task=task, folder=folder, calibration=self.shared.calibration)


def _narrow_parts(values: Mapping[str, Value]) -> tuple[Part, ...]:
    parts, before = [], 0
    for stage in range(3):
        own = [int(values[f"{name}_{stage}"]) for name in ("width", "kernel", "depth")]
        parts.append(Part(module=f"stages.{stage}", decided_by=(before, *own)))
        before = own[0]
    return (*parts, Part(module="", decided_by=(before,)))


def _mobile(family: str) -> Callable[[Mapping[str, Value]], nn.Module]:
    def build(architecture: Mapping[str, Value]) -> nn.Module:
        from bitwright.experiments.models.elastic_conv import Settings, build

        return build(Settings.model_validate({"family": family, "width": 0.5, "depth": 1, **architecture}))

    return build


def _stage_parts(values: Mapping[str, Value]) -> tuple[Part, ...]:
    """Of `elastic_conv`: a stage's costs hang on its own decisions and on the width before it."""
    parts, before = [], 0.0
    for stage in range(4):
        own = tuple(value for name, value in sorted(values.items()) if name.endswith(f"_{stage}"))
        parts.append(Part(module=f"blocks.{stage}", decided_by=(before, *own)))
        before = float(values.get(f"width_{stage}", 0.5))
    return (*parts, Part(module="", decided_by=(before,)))


def _space(ordered: Mapping[str, tuple[Value, ...]], unordered: Mapping[str, tuple[Value, ...]]) -> DeclaredSpace:
    return DeclaredSpace(
        own=(
            *(Parameter(name=name, choices=choices, ordered=True) for name, choices in ordered.items()),
            *(Parameter(name=name, choices=choices, ordered=False) for name, choices in unordered.items()),
        )
    )


NARROW = Networks(
    name="narrow",
    space=narrow_space((4, 6, 10)),
    build=NarrowNet,
    parts=_narrow_parts,
    size=8,
    shared=SupernetSettings(epochs=40, seed=11),
)
NARROW_LIMITED = Networks(
    name="narrow-limited",
    space=narrow_space((3, 5, 8), kernels=(3, 5)),
    build=NarrowNet,
    parts=_narrow_parts,
    size=12,
    shared=SupernetSettings(epochs=30, seed=12),
    most_macs=0.6,
)
MOBILE = Networks(
    name="mobile",
    space=_space(
        {
            **{f"width_{stage}": (0.25, 0.5) for stage in (1, 2, 3)},
            **{f"kernel_{stage}": (3, 5) for stage in (0, 1, 2, 3)},
            "expansion_1": (2, 4),
            "expansion_2": (2, 4),
        },
        {"activation_1": ("relu6", "hardswish"), "se_2": (False, True)},
    ),
    build=_mobile("mobile"),
    parts=_stage_parts,
    size=16,
    shared=SupernetSettings(epochs=20, seed=13),
    target="amd-dpu",
)
RESIDUAL = Networks(
    name="residual",
    space=_space(
        {
            **{f"width_{stage}": (0.25, 0.5) for stage in (0, 1, 2, 3)},
            **{f"kernel_{stage}": (1, 3) for stage in (0, 1, 2, 3)},
            **{f"expansion_{stage}": (0.5, 1.0) for stage in (0, 1, 2)},
        },
        {},
    ),
    build=_mobile("residual"),
    parts=_stage_parts,
    size=16,
    shared=SupernetSettings(epochs=20, seed=14),
    most_macs=0.8,
)
SCORED = (NARROW, NARROW_LIMITED, MOBILE, RESIDUAL)


def latency_table(cache: Path) -> Path:
    """The kernels that were measured on this machine for row `kernel_table`, one thread of ONNX Runtime."""
    return cache / "tables" / "frozen-onnxruntime-1t.table"


def scored_tables(latencies: Path, folder: Path) -> list[Table]:
    """All tables that rows score samplers on."""
    return [each.table(latencies, folder) for each in SCORED]
