"""`bitwright regions`: the table, the JSON, the exit code, and what is refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.experiments.cli import build_app

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x, limit=0.0):
        x = self.backbone(x).mean((2, 3))
        if x.sum() > limit:
            x = -x
        return self.head(x)


def in_pieces():
    return Net(), (torch.randn(1, 3, 8, 8),)


def whole():
    return nn.Conv2d(3, 8, 3)


def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_regions.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_regions"


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(), ["regions", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_network_in_pieces(user: str) -> None:
    code, out, _ = invoke(f"{user}:in_pieces")
    assert code == 1
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["backbone", "head"]
    assert "input float32 1x3x8x8" in out
    assert "(the model)" in out
    assert "users_regions.py:13: if x.sum() > limit:" in out
    assert lines[-1].startswith("2 regions: 100.0% of MACs, 100.0% of parameters, ")


def test_the_same_as_json(user: str) -> None:
    code, out, _ = invoke(f"{user}:in_pieces", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["whole"] is False
    assert found["macs"] == 8 * 27 * 64 + 16
    assert [(each["name"], each["calls"], each["macs"]) for each in found["regions"]] == [
        ("backbone", 1, 8 * 27 * 64),
        ("head", 1, 16),
    ]
    (failure, *_) = found["eager"][0]["failures"]
    assert (failure["line"], failure["text"], failure["data_dependent"]) == (13, "if x.sum() > limit:", True)


def test_a_network_that_is_captured_whole_needs_an_input(user: str) -> None:
    code, out, _ = invoke(f"{user}:whole", "--input", "1x3x8x8")
    assert code == 0
    assert out.splitlines()[-1] == "the model is captured whole"
    code, _, err = invoke(f"{user}:whole")
    assert code == 2
    assert "--input is missing: the shape of an example input" in err


def test_what_is_no_network_is_refused(user: str) -> None:
    code, _, err = invoke(f"{user}:nothing", "--input", "1x3x8x8")
    assert code == 2
    assert "returned int; expected a torch.nn.Module, or one with a tuple of arguments" in err


def test_inputs_that_do_not_fit_are_refused_without_a_traceback(user: str) -> None:
    code, _, err = invoke(f"{user}:in_pieces", "--input", "1x4x8x8")
    assert code == 2
    assert "the model does not run on these arguments" in err
    assert "Traceback" not in err
