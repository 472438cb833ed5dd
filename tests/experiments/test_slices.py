"""Slices of the data: named by column, folder or entry, covered by calibration, told apart in accuracy."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright.experiments.calibration_data import calibration_batches, calibration_slices, chosen_rows
from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import EvaluateResult, VerdictResult
from bitwright.experiments.run import run_recipe
from bitwright.experiments.slices import slices_of
from bitwright.experiments.workbench import Workbench
from bitwright.quant.errors import InputError

CODE = """
import torch
from torch import nn

WEATHER = torch.tensor([0] * 30 + [1] * 8 + [2] * 2)

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()

def part(seed, network):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(40, 3, 10, 10, generator=generator) * (1 + 4 * WEATHER.view(-1, 1, 1, 1))
    return [(pictures[i : i + 5], network(pictures[i : i + 5]).argmax(1), WEATHER[i : i + 5]) for i in range(0, 40, 5)]

def data():
    with torch.no_grad():
        return {"calibrate": part(1, network()), "evaluate": part(2, network())}

def by_label(batch):
    return ["dark" if each else "bright" for each in batch[2].tolist()]

def one_name(batch):
    return "dark"

def share_right(network, loader):
    right = count = 0
    for pictures, labels, _ in loader:
        right += int((network(pictures).argmax(1) == labels).sum())
        count += len(labels)
    return {"right": 100 * right / count}
"""
RECIPE = """\
name: weather
target: x86-vnni
model: {{entry: {m}:network}}
data:
  entry: {m}:data
  slices: {{column: 2, names: [day, night, rain], min_calibration: 2}}
calibrate: {{samples: 12, min_samples: 4}}
measure: {{seconds: 0.1, rounds: 2}}
report: {{html: false, tensorboard: false}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"weather_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CODE)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(m=module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


def bench(*overrides: str) -> tuple[Workbench, torch.nn.Module]:
    opened = Workbench(load_recipe("recipe.yaml", overrides))
    return opened, opened.new_model()


def pictures(opened: Workbench, model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([arguments[0] for arguments in opened.calibration(model)])


def everything(opened: Workbench) -> torch.Tensor:
    return torch.cat([batch[0] for batch in opened.data.loader(Split.CALIBRATE, 1, None)])


def test_the_first_are_the_first(here: str) -> None:
    opened, model = bench()
    assert torch.equal(pictures(opened, model), everything(opened)[:12])
    assert calibration_slices(opened, model) == {"day": 12}


def test_a_random_draw_follows_the_seed_and_stays_among_the_candidates(here: str) -> None:
    (one, model), (same, _), (other, _) = (bench("calibrate.select=random", f"seed={seed}") for seed in (3, 3, 4))
    assert chosen_rows(one, model) == chosen_rows(same, model) != chosen_rows(other, model)
    assert torch.equal(pictures(one, model), everything(one)[sorted(chosen_rows(one, model))])
    few, _ = bench("calibrate.select=random", "calibrate.candidates=14")
    assert len(set(chosen_rows(few, model))) == 12 and max(chosen_rows(few, model)) < 14


def test_coverage_takes_some_of_every_slice(here: str) -> None:
    opened, model = bench("calibrate.select=coverage")
    found = calibration_slices(opened, model)
    assert sum(found.values()) == 12 and set(found) == {"day", "night", "rain"}
    assert len(list(calibration_batches(opened, model))) <= 8  # as batches of the user's own size, cut


def go(*overrides: str) -> Any:
    return run_recipe(load_recipe("recipe.yaml", overrides), Path("run"), console=Console())


def test_accuracy_is_told_by_slice_and_slices_that_did_not_calibrate_are_warned_of(
    here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = go()
    found = EvaluateResult.model_validate(record.stages["evaluate"].result)
    assert [(each.name, each.calibrated, each.sqnr.n) for each in found.slices] == [
        ("day", 12, 30), ("night", 0, 8), ("rain", 0, 2)
    ]  # fmt: skip
    parts = sum(each.quantized.value * (each.sqnr.n or 0) for each in found.slices) / 40
    assert parts == pytest.approx(found.quantized[0].metrics["top1"].value)
    day, night, rain = found.slices
    assert not day.warning and night.sqnr.value < day.sqnr.value
    warning = "slice 'rain': none of its samples calibrated, so its ranges may be cut off; add some to the calibration"
    assert rain.warning.startswith(warning) and f"    warning: {warning}" in capsys.readouterr().err
    statements = VerdictResult.model_validate(record.stages["verdict"].result).statements
    assert any(each.startswith("Slice 'rain': none of its samples calibrated") for each in statements)
    worst = max(found.slices, key=lambda each: (each.drop.value, -each.sqnr.value))
    assert any(
        each.startswith(
            f"Of 3 slices {worst.name!r} loses most: top1 from 100.00 % to {worst.quantized.value:.2f} % on "
        )
        for each in statements
    )


def test_a_metric_of_the_users_own_is_told_by_slice(here: str) -> None:
    overrides = (f"evaluate={{entry: {here}:share_right, metric: right}}", f"data.slices={{entry: {here}:by_label}}")
    record = run_recipe(
        load_recipe("recipe.yaml", overrides), Path("run"), until="evaluate", console=Console(quiet=True)
    )
    found = EvaluateResult.model_validate(record.stages["evaluate"].result)
    assert [each.name for each in found.slices] == ["bright", "dark"]
    bright, dark = (each.quantized.value for each in found.slices)
    assert (30 * bright + 10 * dark) / 40 == pytest.approx(found.quantized[0].metrics["right"].value)


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ("{column: 7}", "data.slices.column = 7: a batch (tuple) has 3 parts"),
        (
            "{column: 0}",
            "data.slices.column = 0: holds torch.float32 [5, 3, 10, 10]; expected one whole number or name",
        ),
        ("{column: 2, names: [day]}", "data.slices.names: has 1 names, the column holds 1"),
        ("{folder: 1}", "data.slices.folder = 1: these data come from no folders of pictures; give column or entry in"),
        (
            "{{entry: {m}:one_name}}",
            "data.slices.entry = '{m}:one_name': returned str; expected a list of names, one for",
        ),
    ],
)
def test_slices_that_cannot_be_read(here: str, slices: str, message: str) -> None:
    opened, model = bench(f"data.slices={slices.format(m=here) if '{m}' in slices else slices}")
    with pytest.raises(InputError, match=f"^{re.escape(message.format(m=here) if '{m}' in message else message)}"):
        calibration_slices(*(Workbench(opened.recipe), model)) if "names" not in slices else [
            slices_of(batch, opened.recipe.data.slices, 5)  # type: ignore[arg-type]
            for batch in opened.data.loader(Split.CALIBRATE, 1, None)
        ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.slices={column: 1, folder: 1}",
            "needs one of column, folder and entry: what names the slice of a sample",
        ),
        ("data.slices={folder: 1, names: [a]}", "names say what the numbers of a column mean; give column"),
        ("calibrate.candidates=50", "candidates are what select: random and select: coverage choose from; give one of"),
        ("calibrate={select: random, samples: 9, candidates: 4}", "candidates = 4 are fewer than samples = 9"),
    ],
)
def test_sections_that_contradict_themselves(here: str, override: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe("recipe.yaml", [override])


def test_folders_name_slices(tmp_path: Path) -> None:
    for weather in ("night", "day"):
        for index in range(3):
            file = tmp_path / "cats" / weather / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16, 3), 40 * index, np.uint8)).save(file)
    (tmp_path / "recipe.yaml").write_text(
        "name: f\ntarget: x86-vnni\nmodel: {kind: digits_mobilenet}\n"
        f"data: {{kind: image_folder, root: {tmp_path / 'cats'}, size: 16, resize: 16, calibration: 4,\n"
        "  slices: {folder: 1}}\ncalibrate: {samples: 4}\n"
    )
    opened = Workbench(load_recipe(str(tmp_path / "recipe.yaml")))
    model = torch.nn.Identity()
    assert calibration_slices(opened, model) == {"day": 2, "night": 2}
