"""The decision over processes, on machines that are made up; and once for real."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure import Measurement
from bitwright.hw_constraints.measure.regression import Change, Regression, compare_files


class MadeUpMachine:
    """In each process both files have a level of their own, beside what really differs; rounds add little."""

    def __init__(self, ratio: float, *, between: float, seed: int) -> None:
        self.ratio, self.between, self.random = ratio, between, np.random.default_rng(seed)
        self.first: list[str] = []

    def __call__(self, files, **options) -> Measurement:
        self.first.append(next(iter(files)))
        levels = {"old": 100.0, "new": 100.0 * self.ratio}
        times = {}
        for name in files:
            level = levels[name] * np.exp(self.random.normal(0, self.between))
            times[name] = tuple(level * np.exp(self.random.normal(0, 0.002, 30)))
        return Measurement(
            times_us=times, rounds=30, disturbed_samples=0, disturbed_rounds=1, dropped_disturbed=True, basis="wall",
            converged=True, load_before=0.0, load_after=0.0, device=this_machine(), threads=1,
        )  # fmt: skip


def decide(ratio: float, seed: int, *, between: float = 0.02, margin: float = 0.02) -> Regression:
    machine = MadeUpMachine(ratio, between=between, seed=seed)
    return compare_files(Path("old"), Path("new"), "any", margin=margin, seconds=60, measure=machine)


def test_processes_that_differ_prove_no_regression_where_there_is_none():
    """Levels differ by 2.8 % from process to process: within one process, 30 rounds would prove nearly all of them."""
    outcomes = [decide(1.0, seed).change for seed in range(200)]
    assert sum(each is Change.SLOWER for each in outcomes) == 0
    assert sum(each in (Change.NOT_SLOWER, Change.FASTER) for each in outcomes) > 150


def test_at_the_margin_itself_few_are_called_slower():
    """The worst case that is no regression: at most 2.5 % on this side, 5 of 200 and what chance adds."""
    outcomes = [decide(1.02, seed).change for seed in range(200)]
    assert sum(each is Change.SLOWER for each in outcomes) <= 12


def test_a_true_regression_is_proven():
    assert sum(decide(1.06, seed).change is Change.SLOWER for seed in range(50)) == 50
    assert sum(decide(0.9, seed).change is Change.FASTER for seed in range(50)) == 50


def test_files_take_turns_in_being_loaded_first():
    machine = MadeUpMachine(1.0, between=0.05, seed=0)
    compare_files(Path("old"), Path("new"), "any", margin=0.02, seconds=60, measure=machine)
    assert machine.first[:4] == ["old", "new", "old", "new"]


def test_a_wide_interval_cannot_tell():
    found = Regression(
        ratio=1.03, low=0.98, high=1.09, margin=0.02, processes=(1.0,) * 6, old_us=1.0, new_us=1.0, disturbed_rounds=0
    )
    assert found.change is Change.CANNOT_TELL
    assert str(found) == (
        "1.030 [0.980, 1.090]: cannot tell, the interval holds 1.020 (2 % slower is allowed); give it more seconds"
    )


def convolutions(path: Path, count: int) -> Path:
    weight = np.random.default_rng(0).standard_normal((32, 32, 3, 3)).astype(np.float32) / 17
    nodes = [
        helper.make_node("Conv", ["x" if i == 0 else f"y{i - 1}", "w"], [f"y{i}"], pads=[1] * 4) for i in range(count)
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 16, 16])],
        [helper.make_tensor_value_info(f"y{count - 1}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.slow
def test_twice_the_work_is_slower_and_half_of_it_faster(tmp_path):
    two, four = (convolutions(tmp_path / f"{count}.onnx", count) for count in (2, 4))
    assert compare_files(two, four, "onnxruntime", margin=0.02, seconds=3).change is Change.SLOWER
    assert compare_files(four, two, "onnxruntime", margin=0.02, seconds=3).change is Change.FASTER
