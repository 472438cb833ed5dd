"""The recipes' section of quantization-aware training: what it becomes, and what it refuses."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from bitwright.experiments.datasets import Split
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.models.gated_recurrence import RowReader
from bitwright.experiments.models.inverted_residuals import MobileDetector
from bitwright.experiments.qat_result import QATResult
from bitwright.experiments.results import MeasureResult, QuantizeResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.smaller_network import check_steps
from bitwright.experiments.stages import qat as stage
from bitwright.experiments.stages.qat import _schedule
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError

FOUR_BITS = ("qat_classification", "qat_detection", "qat_segmentation", "qat_sequence")


@pytest.mark.parametrize("name", FOUR_BITS)
def test_shipped_recipes_ask_for_training_in_four_bits(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.qat is not None and recipe.qat.weights.format == "int4"
    _schedule(recipe.qat.schedule)  # the schedule checks itself


def test_a_schedule_is_the_callbacks_own() -> None:
    found = _schedule(load_recipe("qat_detection").qat.schedule)  # type: ignore[union-attr]
    assert [(stage.until, stage.weights) for stage in found.stages] == [(50, "int8")]
    assert found.freezing is not None and found.freezing.threshold.at(150) == pytest.approx(0.02)
    assert found.freeze_batch_norm_after == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("qat.start=middle", "qat.start"),
        ("qat.schedule.gradient_scaling=2", "qat.schedule.gradient_scaling"),
        ("qat.schedule.freeze_batch_norm_after=5", "freeze_batch_norm_after must be 0"),
        ("qat.sparsity={pattern: 4:2}", "pattern = '4:2': of N:M, N weights of M stay; give 0 < N < M, such as 2:4"),
        ("qat.sparsity={pattern: most}", "pattern = 'most' is neither N:M (2:4) nor ROWSxCOLUMNS of a block (16x1)"),
        ("qat.sparsity={share: 0.4}", "share = 0.4: pattern 2:4 makes 0.5 of all weights zero; leave it out"),
        ("qat.sparsity={begin: 9, end: 5}", "begin = 9, end = 5; zeros begin before the pattern is complete"),
        ("qat.sparsity={}", "start = 'quantized' has rounded weights that sparsity would drop; start must be 'float'"),
        ("qat.mixed={budget: {}}", "give one of latency and size"),
        ("qat.mixed={budget: {size: 0.5, latency: 1 ms}}", "give one of latency and size"),
        ("qat.mixed={budget: {size: 2.0}}", "a number is a share of the way (0 to 1); an amount has its unit"),
        ("qat.mixed={budget: {size: 0.5}, formats: [int8]}", "qat.mixed.formats"),
        (
            "qat.mixed={budget: {size: 0.5}, formats: [int8, int5]}",
            "qat.mixed.formats[1] = 'int5'; unknown number format of qat.mixed.formats 'int5'",
        ),
        (
            "qat.mixed={budget: {size: 3 ms}}",
            "qat.mixed.budget.size = '3 ms'; expected a share of the way from all in ",
        ),
        (
            "qat.mixed={budget: {latency: 0.5}}",
            "predict.tables = [FILE] brings a table of `bitwright measure kernels`, or limit the size",
        ),
        ("qat.prune={target: 1.0}", "qat.prune.target = 1.0"),
        ("qat.prune={target: 0.5, cost: size}", "qat.prune.cost = 'size'"),
        (
            "qat.prune={target: 0.5}",
            "has no cost model; predict.tables = [FILE] brings a table of `bitwright measure kernels`, or give cost: "
            "macs",
        ),
    ],
)
def test_what_a_recipe_refuses(override: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe("qat_classification", (override,))


def test_networks_of_recipes_take_their_data() -> None:
    assert MobileDetector(depth=1)(torch.zeros(2, 3, 96, 96)).shape == (2, 15, 12, 12)
    assert RowReader(size=16, hidden=32)(torch.zeros(3, 3, 16, 16)).shape == (3, 10)


def test_a_pattern_that_the_training_does_not_complete_is_refused_before_it() -> None:
    recipe = load_recipe("qat_sparse", ("qat.sparsity.end=100",))
    bench = SimpleNamespace(data=SimpleNamespace(splits={Split.TRAIN: 1300}))
    message = (
        "qat.sparsity.end = 100; the training has 84 steps (4 epochs of 21), and the pattern must be complete by then"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_steps(SimpleNamespace(recipe=recipe, bench=bench))  # type: ignore[arg-type]
    check_steps(SimpleNamespace(recipe=load_recipe("qat_sparse"), bench=bench))  # type: ignore[arg-type]


def test_a_network_that_is_not_one_graph_is_refused_with_what_trains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deciding(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.mean() > 0 else -x)

    monkeypatch.setattr(stage, "_compared", lambda _: capture(Deciding(4, 2), (torch.ones(1, 4),)))
    message = (
        r"^qat: the model cannot be captured\n  .*return super\(\)\.forward\(x if x\.mean\(\) > 0 else -x\)\n(  .*\n)+"
        r"  a recipe trains and compares one file, which this network does not fit into; train it in your own loop: "
        r"bitwright\.qat\.QATCallback trains its regions, and finish\(path\) writes a file for each$"
    )
    with pytest.raises(InputError, match=message):
        stage.train_quantized(SimpleNamespace())  # type: ignore[arg-type]


SHORT = ("train.epochs=1", "qat.epochs=1", "evaluate.samples=64", "measure.seconds=1")


@pytest.mark.slow
def test_a_pruned_network_is_smaller_in_its_file_and_by_its_targets_model(tmp_path: Path) -> None:
    recipe = load_recipe("qat_pruned", (*SHORT, "qat.prune.epochs=1", "qat.prune.every=5"))
    record = run_recipe(recipe, tmp_path / "run", until=("qat", "quantize"))
    found = QATResult.model_validate(record.stages["qat"].result)
    whole = QuantizeResult.model_validate(record.stages["quantize"].result)
    assert found.pruned is not None and found.size is not None
    assert found.pruned.after.value <= 0.6 * found.pruned.before.value
    assert found.size.value < whole.quantized_bytes.value
    assert all(after % 8 == 0 for _, after in found.pruned.channels.values())


@pytest.mark.slow
def test_a_sparse_network_has_its_zeros_in_the_file_and_is_measured(tmp_path: Path) -> None:
    recipe = load_recipe("qat_sparse", (*SHORT, "qat.sparsity.end=10"))
    record = run_recipe(recipe, tmp_path / "run", until=("measure",))
    found = QATResult.model_validate(record.stages["qat"].result)
    assert found.sparse is not None and found.sparse.zeros.value >= 0.5
    speeds = MeasureResult.model_validate(record.stages["measure"].result).speeds
    assert speeds and all(row.trained_ratio is not None for row in speeds)
    model = onnx.load(tmp_path / "run" / "stages" / "qat" / "qat.onnx")
    codes = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
    weights = [each for each in codes if each.ndim == 4 and each.dtype == np.int8 and each.shape[1] % 4 == 0]
    for weight in weights:
        groups = np.moveaxis(weight, 1, -1).reshape(-1, 4)
        assert int((groups != 0).sum(axis=1).max()) <= 2
    assert len(weights) >= 12


@pytest.mark.slow
def test_learned_formats_keep_the_budget_and_are_those_of_the_file(tmp_path: Path) -> None:
    recipe = load_recipe("qat_mixed", ("train.epochs=1", "qat.epochs=1", "qat.mixed.epochs=1", "evaluate.samples=64"))
    record = run_recipe(recipe, tmp_path / "run", until=("qat",))
    found = QATResult.model_validate(record.stages["qat"].result).mixed
    assert found is not None and len(set(found.formats.values())) > 1
    assert found.cost.value <= found.budget.value < found.first.value
    model = onnx.load(tmp_path / "run" / "stages" / "qat" / "qat.onnx")
    kinds = {each.name: onnx.numpy_helper.to_array(each).dtype for each in model.graph.initializer}
    points = {kinds[node.input[2]].itemsize for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert points == {2 if name == "int16" else 1 for name in found.formats.values()}


@pytest.mark.slow
def test_a_recipe_trains_and_leaves_events(tmp_path: Path) -> None:
    overrides = ("train.epochs=2", "qat.epochs=1", "model.hidden=16", "measure.seconds=1")
    recipe = load_recipe("qat_sequence", overrides)
    run_recipe(recipe, tmp_path / "run", until=("qat",))
    stage = tmp_path / "run" / "stages" / "qat"
    assert list((stage / "events").glob("events.out.tfevents.*"))
    assert json.loads((stage / "manifest.json").read_text())
