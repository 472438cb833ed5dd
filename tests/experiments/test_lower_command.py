"""`bitwright lower`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.experiments.cli import build_app
from bitwright.experiments.lower_text import module_and_name

ENTRY = """
def small():
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Mish()).eval()
"""


def lower(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build_app(), ["lower", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "small_net.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("small_net", None)
    return ["small_net:small", "--input", "1x3x16x16"]


def test_page_has_layers_totals_and_what_it_rests_on(entry: list[str]) -> None:
    code, text = lower(*entry, "--target", "tesla-fsd-hw3")
    assert code == 0
    assert "conv2d + relu" in text
    assert "63,488 MACs; at least" in text
    assert "no figure for 1 of them" in text
    assert "has no mish; what it lacks runs on the host" in text
    assert "not verified: numerics" in text


def test_json_and_trace(entry: list[str], tmp_path: Path) -> None:
    code, text = lower(*entry, "--target", "h200", "--json", "--trace", str(tmp_path / "trace.json"))
    assert code == 0
    assert json.loads(text)["origin"] == "modelled"
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_story_of_a_layer(entry: list[str]) -> None:
    code, text = lower(*entry, "--target", "ethos-u85-1024", "--explain", "0")
    assert code == 0
    assert text.startswith("conv2d: conv2d -> relu, in module '0'")


def test_target_without_lowering_is_misuse_before_the_network_is_built() -> None:
    code, text = lower("no.such:network", "--target", "x86-vnni")
    assert code == 2
    assert "does not serve lower" in text


@pytest.mark.parametrize(
    ("name", "path", "label"),
    [
        ("conv2d_2", "c", "c (conv2d_2)"),  # a letter of the name is not its module
        ("/stem/conv/Conv", "stem.conv", "stem.conv (/stem/conv/Conv)"),
        ("neck.conv@0.0.0", "neck.conv", "neck.conv@0.0.0"),
        ("relayout x", "", "relayout x"),
    ],
)
def test_an_operation_is_named_with_its_module(name: str, path: str, label: str) -> None:
    assert module_and_name(path, name) == label
