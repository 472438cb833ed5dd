from __future__ import annotations

import math

import numpy as np
import pytest
from made_up_machine import kernel_us, splits, table

from bitwright.hw_constraints.kernels import Kernel, Split
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.predict.adapt import adapt, telling
from bitwright.hw_constraints.predict.calibration import MeasuredNetwork
from bitwright.hw_constraints.predict.from_table import predictor_of
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.quant.errors import InputError

SAMPLES = 20


def _elsewhere(kernels: list[Kernel]) -> float:
    """A device with twice the arithmetic, the same bytes, and a slower call."""
    return 30.0 + sum(0.55 * kernel_us(kernel) if kernel.macs else 1.1 * kernel_us(kernel) for kernel in kernels)


def _network(name: str, parts: Split) -> MeasuredNetwork:
    kernels = tuple(placed.kernel for placed in parts.kernels)
    us = _elsewhere(list(kernels))
    return MeasuredNetwork(name=name, kernels=kernels, inputs=parts.inputs, outputs=parts.outputs, us=us)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LatencyPredictor:
    return predictor_of(table(tmp_path_factory.mktemp("tables") / "made-up.table"))


@pytest.fixture(scope="module")
def candidates() -> list[MeasuredNetwork]:
    return [_network(name.partition("/")[0], parts) for name, parts in splits(20).items()]


def _errors(by: LatencyPredictor) -> np.ndarray:
    found = splits(12, seed=7)
    return np.array(
        [
            abs(math.log(by.network(each).us / _elsewhere([placed.kernel for placed in each.kernels])))
            for each in found.values()
        ]
    )


def test_twenty_networks_are_enough(predictor: LatencyPredictor, candidates: list[MeasuredNetwork]) -> None:
    samples = [candidates[index] for index in telling(predictor, candidates, SAMPLES)]
    adapted = adapt(predictor, samples, rules=known_rules("onnxruntime"), where="elsewhere")
    assert np.median(_errors(adapted)) < 0.03  # what computes, what moves, and the call: three changes, three factors
    assert np.quantile(_errors(adapted), 0.9) < 0.06
    assert np.median(_errors(adapted)) < np.median(_errors(predictor)) / 10
    assert adapted.where == "elsewhere" and adapted.intervals.groups >= 9


@pytest.mark.parametrize("runs", range(3))
def test_a_version_that_is_only_a_little_slower_is_not_read_into_factors(
    predictor: LatencyPredictor, runs: int
) -> None:
    """All takes 4 % more, and each measurement is off by 5 %: one factor is there, and little else is found."""
    generator = np.random.default_rng(runs)
    known = [
        MeasuredNetwork(name=name.partition("/")[0], kernels=tuple(placed.kernel for placed in each.kernels),
                        inputs=each.inputs, outputs=each.outputs,
                        us=1.04 * predictor.network(each).us * math.exp(0.05 * generator.standard_normal()))
        for name, each in splits(20).items()
    ]  # fmt: skip
    samples = [known[index] for index in telling(predictor, known, SAMPLES)]
    adapted = adapt(predictor, samples, rules=known_rules("onnxruntime"), where="a version on")
    errors = [
        math.log(adapted.network(each).us / (1.04 * predictor.network(each).us)) for each in splits(12, 7).values()
    ]
    assert np.median(np.abs(errors)) < 0.03
    assert np.quantile(np.abs(errors), 0.9) < 0.06


def test_telling_networks_are_different_ones(predictor: LatencyPredictor, candidates: list[MeasuredNetwork]) -> None:
    chosen = telling(predictor, candidates, SAMPLES)
    assert len(set(chosen)) == SAMPLES
    families = {(kernel.family, kernel.format) for index in chosen for kernel in candidates[index].kernels}
    every = {(kernel.family, kernel.format) for network in candidates for kernel in network.kernels}
    assert len(families) >= 0.9 * len(every)


def test_too_few_are_refused(predictor: LatencyPredictor, candidates: list[MeasuredNetwork]) -> None:
    with pytest.raises(InputError, match="3 networks to adapt by; at least 10 are needed, 20 do better"):
        adapt(predictor, candidates[:3], rules=known_rules("onnxruntime"), where="elsewhere")
