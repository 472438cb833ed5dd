"""A point of the search: which sites are in float, what is written as real values; and the file that it stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.autotune.sites import Sites
from bitwright.hw_constraints.autotune.spelling import spell_silu
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.graph import TensorRef
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.restrict import restrict_model

_REASON = "faster in float by measurement"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where Q/DQ go.

    Attributes:
        floats: sites in float, by name.
        real: sites in int8 that write real values where only float operators read them, instead of a Q/DQ pair.
        spelled: whether operators of the runtime's own are used (see `spelling`).
    """

    floats: frozenset[str] = frozenset()
    real: frozenset[str] = frozenset()
    spelled: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {"float": sorted(self.floats), "real": sorted(self.real), "spelled": self.spelled}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Decision:
        """Reads what `to_json` wrote."""
        return cls(floats=frozenset(record["float"]), real=frozenset(record["real"]), spelled=record["spelled"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Turns decisions into networks and files.

    Attributes:
        quantized: the network with everything in low precision that its scheme allows.
        reference: the same network in float, biases as they were before their correction.
        sites: its choices.
    """

    quantized: QuantizedModel
    reference: CapturedModel
    sites: Sites

    @cached_property
    def real_results(self) -> dict[str, tuple[TensorRef, ...]]:
        """The results of each site and its followers."""
        return {name: self.sites.results(site) for name, site in self.sites.by_name.items()}

    def network(self, decision: Decision) -> QuantizedModel:
        """The network that a decision stands for."""
        return restrict_model(
            self.quantized, self.reference, floats=dict.fromkeys(self._floats(decision), _REASON),
            real={ref for name in decision.real for ref in self.real_results[name]},
        )  # fmt: skip

    def _floats(self, decision: Decision) -> set[str]:
        """The nodes in float: of the sites, and followers that nobody in int8 reads."""
        graph = self.sites.graph
        floats = {node for name in decision.floats for node in self.sites.by_name[name].nodes}
        for name in reversed(self.sites.followers):
            readers = [each for ref in graph.by_name[name].outputs for each in graph.consumers[ref]]
            if not any(each.name in self.sites.plan.quantized - floats for each in readers):
                floats.add(name)
        return floats

    def identity(self, decision: Decision) -> str:
        """Equal for decisions that lead to the same file."""
        plan = self.network(decision).plan
        parts = [*sorted(plan.quantized), "", *sorted(map(str, plan.activations)), str(decision.spelled)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def write(self, decision: Decision, path: Path) -> Path:
        """Writes the file that a decision stands for, with its provenance."""
        export_onnx_qdq(self.network(decision), path)
        if decision.spelled:
            spell_silu(path)
        return path
