"""Networks of any assignment, put together from one quantized network for each format; nothing is calibrated twice.

The range of a tensor does not hang on who reads it, and rounding or correcting a layer is done with its own input in
float. So a layer in format f is what it is in the network that has everything in f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import TensorRef
from bitwright.quant.mixed_precision.problem import Assignment, Problem
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec, QuantScheme
from bitwright.quant.sensitivity import Rounding, rounding_noise
from bitwright.quant.sqnr import sqnr_db

Quantize = Callable[[QuantScheme], QuantizedModel]
_Key = tuple[TensorRef, str]


class MixedNetworks:
    """The networks of a problem.

    Attributes:
        problem: whose assignments.
        reference: the network in float, batch norms folded.
    """

    def __init__(
        self, problem: Problem, reference: CapturedModel, quantize: Quantize, samples: Sequence[Arguments]
    ) -> None:
        """Keeps what it is given; networks are made when they are asked for.

        Args:
            problem: groups and formats.
            reference: the network in float, batch norms folded.
            quantize: makes the network of a scheme from `reference`, its values not rescaled.
            samples: arguments of `forward` that noise is measured on, not empty.
        """
        self.problem, self.reference = problem, reference
        self._quantize, self._samples = quantize, tuple(samples)
        self._uniform: dict[str, QuantizedModel] = {}
        self._measured: dict[frozenset[tuple[str, str]], float] = {}

    def uniform(self, name: str) -> QuantizedModel:
        """Everything in one format."""
        if name not in self._uniform:
            self._uniform[name] = self._quantize(self.problem.mixed_scheme(self.problem.uniform(name)))
        return self._uniform[name]

    def of(self, assignment: Assignment) -> QuantizedModel:
        """The network of an assignment."""
        decided = self.problem.plan(assignment)
        keys = {ref: (ref, repr(spec)) for ref, spec in (*decided.activations.items(), *decided.weights.items())}
        qparams = {ref: self._known[key] for ref, key in keys.items() if key in self._known}
        dynamic = {ref: self._dynamic[key] for ref, key in keys.items() if key in self._dynamic}
        if len(qparams.keys() | dynamic.keys()) < len(keys):
            return self._quantize(decided.scheme)  # a tensor whose format none of the uniform networks has
        captured = replace(self.reference, values=self._values(assignment, decided))
        return QuantizedModel(captured=captured, plan=decided, qparams=qparams, dynamic=dynamic)

    def noise(self, assignment: Assignment) -> float:
        """Σ (result - float result)² ÷ Σ float result², by running the network on the samples."""
        key = frozenset(assignment.items())
        if key not in self._measured:
            self._measured[key] = self.noise_of(self.of(assignment))
        return self._measured[key]

    def noise_of(self, model: QuantizedModel) -> float:
        """The same of any network with these results."""
        state, noise = model.captured.initial_state(), 0.0
        for arguments, expected in zip(self._samples, self._expected, strict=True):
            found = model.captured.outputs(model.run(*arguments, state=state))
            noise += sum(_square(want - have) for want, have in zip(expected, found, strict=True) if _is_real(want))
        return noise / self._signal

    def noise_by_rounding(self) -> dict[_Key, float]:
        """The cheap estimate: what rounding each tensor in each spec does to first order (`sensitivity`)."""
        ways: dict[TensorRef, dict[str, Rounding]] = {}
        for (ref, spec), qparams in self._known.items():
            ways.setdefault(ref, {})[spec] = _rounding(qparams)
        for (ref, spec), way in self._dynamic.items():
            ways.setdefault(ref, {})[spec] = _dynamic_rounding(way)
        found = rounding_noise(self.reference, ways, self._samples)
        return {key: value * len(self._samples) / self._signal for key, value in found.items()}

    @property
    def _coded(self) -> list[QuantizedModel]:
        return [self.uniform(each.name) for each in self.problem.formats if not each.is_float]

    @cached_property
    def _known(self) -> dict[_Key, QParams]:
        pools = [(model.plan, model.qparams) for model in self._coded]
        return {(ref, repr(_spec(plan, ref))): found for plan, pool in pools for ref, found in pool.items()}

    @cached_property
    def _dynamic(self) -> dict[_Key, DynamicQParams]:
        pools = [(model.plan, model.dynamic) for model in self._coded]
        return {(ref, repr(_spec(plan, ref))): found for plan, pool in pools for ref, found in pool.items()}

    def _values(self, assignment: Assignment, decided: QuantPlan) -> dict[str, torch.Tensor]:
        """Each layer's weights and bias as its format's network has them; those of layers in float as they were."""
        values, names = dict(self.reference.values), self.reference.value_refs
        for group in self.problem.groups.values():
            if self.problem.by_name[assignment[group.name]].is_float:
                continue
            source = self.uniform(assignment[group.name]).captured
            for node in (self.problem.graph.by_name[name] for name in group.nodes if name in decided.quantized):
                for ref in (ref for ref in node.tensors if ref in names):
                    values[names[ref]] = source.values[names[ref]]
        return values

    @cached_property
    def _expected(self) -> list[list[torch.Tensor]]:
        state = self.reference.initial_state()
        return [self.reference.outputs(self.reference.run(*each, state=state)) for each in self._samples]

    @cached_property
    def _signal(self) -> float:
        return sum(_square(each) for results in self._expected for each in results if _is_real(each)) or 1.0


def decibels(noise: float) -> float:
    """The SQNR of a relative noise."""
    return sqnr_db(1.0, noise)


def _spec(plan: QuantPlan, ref: TensorRef) -> QParamsSpec:
    return plan.activations[ref] if ref in plan.activations else plan.weights[ref]


def _rounding(qparams: QParams) -> Rounding:
    return lambda tensor: fake_quantize(tensor, qparams)


def _dynamic_rounding(way: DynamicQParams) -> Rounding:
    return lambda tensor: fake_quantize(tensor, way.of(tensor))


def _is_real(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point()


def _square(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().sum())
