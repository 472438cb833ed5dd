"""The recipes' section of quantization-aware training: what it becomes, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.models.gated_recurrence import RowReader
from bitwright.experiments.models.inverted_residuals import MobileDetector
from bitwright.experiments.run import run_recipe
from bitwright.experiments.stages.qat import _schedule
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


@pytest.mark.slow
def test_a_recipe_trains_and_leaves_events(tmp_path: Path) -> None:
    overrides = ("train.epochs=2", "qat.epochs=1", "model.hidden=16", "measure.seconds=1")
    recipe = load_recipe("qat_sequence", overrides)
    run_recipe(recipe, tmp_path / "run", until=("qat",))
    stage = tmp_path / "run" / "stages" / "qat"
    assert list((stage / "events").glob("events.out.tfevents.*"))
    assert json.loads((stage / "manifest.json").read_text())
