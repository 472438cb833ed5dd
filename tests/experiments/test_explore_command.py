"""`bitwright explore` as a person meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.experiments.explore_text import sensitivity
from bitwright.hw_constraints.explore import Point, Sweep
from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.target import load_target

NET = """\
import torch


def wide():
    layers = [torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 512)]
    return torch.nn.Sequential(*layers), (torch.zeros(1, 512),)


def deep():
    layers = [torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]
    return torch.nn.Sequential(*layers), (torch.zeros(1, 8, 16, 16),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "explored_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def explore(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), ["explore", *arguments])


def test_tables_say_what_each_step_buys_and_what_holds_back(folder: Path) -> None:
    done = explore(
        "explored_net:wide", "explored_net:deep=3", "--target", "tesla-fsd-hw3",
        "--vary", "dram.bandwidth=17..272GB/s", "--vary", "array=48..96",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "explored_net:wide x 1, explored_net:deep x 3 on tesla-fsd-hw3; every figure is modelled"
    assert "68.2 GB/s" in done.stdout and "as it is" in done.stdout
    assert any(line.startswith("68.2 GB/s to 136 GB/s: -") for line in lines)
    assert any("waits for" in line for line in lines)
    assert any(line.startswith("explored_net:wide: 2 (linear_1) ") for line in lines)  # module and operation
    assert any(line.startswith("leans on: engines.npu.array") for line in lines)


def test_json_and_picture(folder: Path) -> None:
    picture = folder / "explored.png"
    options = ("--vary", "memory.sram=1..2MiB", "--json", "--picture", str(picture))
    done = explore("explored_net:wide", "--target", "tesla-fsd-hw3", *options)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert [point["setting"] for point in data["sweeps"][0]["points"]] == ["1 MiB", "2 MiB", "32 MiB"]
    with Image.open(picture) as image:
        assert image.width > image.height > 100
        assert len(set(image.convert("L").resize((60, 30)).tobytes())) > 5  # something is drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "tesla-fsd-hw3", "--vary", "sram.sise=1MiB"], "vary 'sram.sise': target 'tesla-fsd-hw3' has no"),
        (["--target", "hexagon-htp", "--vary", "memory.sram=1MiB"], "target 'hexagon-htp' does not serve cost"),
    ],
)
def test_misuse_is_said_before_anything_is_captured(folder: Path, arguments: list[str], message: str) -> None:
    done = explore("explored_net:none", *arguments)
    assert message in str(done.exception or "") + done.output


def test_a_weight_that_is_none_is_said(folder: Path) -> None:
    done = explore("explored_net:wide=often", "--target", "tesla-fsd-hw3", "--vary", "memory.sram=1MiB")
    assert "weight = 'often'; expected a number above 0" in str(done.exception or "") + done.output


def test_a_refused_setting_is_no_number() -> None:
    axis = Axis.parse("memory.sram=1MiB", load_target("tesla-fsd-hw3"))
    small, own = axis.settings
    points = (
        Point(setting=small, us={}, total_us=0.0, refused="too small"),
        Point(setting=own, us={"a": 2.0}, total_us=2.0),
    )
    assert sensitivity(Sweep(axis=axis, points=points)) == "32 MiB to 1 MiB: cannot be lowered"
