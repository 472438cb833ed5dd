"""`bitwright lint --fix` as a person or a pipeline meets it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.experiments.fix_command import fix_model, fixes_text
from bitwright.hw_constraints.fixes.base import fix_names
from bitwright.quant.errors import InputError

NET = """\
import torch
import torch.nn.functional as F


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.body = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = torch.nn.Conv2d(8, 4, 1)

    def forward(self, image):
        x = F.relu(F.relu(self.stem(image)))
        for conv in self.body:
            x = F.gelu(conv(x))
        return self.head(x)


class Inverse(torch.nn.Module):
    def forward(self, pose):
        return torch.linalg.svd(pose)[1]


def build():
    torch.manual_seed(0)
    return Net()


def beyond_help():
    return Inverse()
"""
INPUT = ("--input", "1x3x16x16")
TARGET = ("--target", "edge-tpu")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


def fix(*arguments: str, entry: str = "net:build", inputs: tuple[str, ...] = INPUT) -> Any:
    return CliRunner().invoke(cli.build_app(), ["lint", entry, *inputs, *TARGET, "--fix", *arguments])


def block(text: str, head: str) -> str:
    """The one block that starts so, with its diff."""
    (found,) = [each for each in text.split("\n\n") if each.startswith(head)]
    return found


def test_what_was_made_is_shown_with_its_reason_and_as_a_diff(here: Path) -> None:
    done = fix()
    made = block(done.stdout, "fixed[drop_no_effect]").splitlines()
    assert made[0] == "fixed[drop_no_effect] net.py:13: an operator that changes nothing falls away"
    assert made[1].startswith("removes: redundant_operator: ")
    assert made[2].startswith("parity:  ") and made[2].endswith(": bit for bit equal")
    assert made[3].startswith("time:    ") and " us" in made[3]
    assert made[4:6] == ["--- a/net.py", "+++ b/net.py"]
    assert (here / "net.py").read_text() == NET  # nothing is ever written there
    assert "the fixed network against the original: bit for bit equal on 0 recorded and 2 random inputs" in done.stdout


def test_the_diff_is_one_that_git_applies_and_the_network_computes_the_same(here: Path) -> None:
    made = block(fix().stdout, "fixed[drop_no_effect]")
    (here / "change.diff").write_text(made[made.index("--- a/") :] + "\n")
    applied = subprocess.run(["git", "apply", "change.diff"], cwd=here, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, applied.stderr
    assert (here / "net.py").read_text() != NET
    x, results = torch.randn(1, 3, 16, 16), []
    for text in (NET, (here / "net.py").read_text()):
        scope: dict[str, Any] = {}
        exec(compile(text, "net.py", "exec"), scope)
        results.append(scope["build"]().eval()(x))
    assert torch.equal(*results)


def test_an_approximation_is_named_with_its_error_and_made_when_asked_for() -> None:
    asks = block(fix().stdout, "not made[approximate_activation]")
    assert " at net.py:15: it is an approximation (" in asks and asks.endswith("--approximate makes it")
    done = fix("--approximate")
    made = block(done.stdout, "fixed[approximate_activation]")
    assert "+            x = (t := conv(x)) * torch.sigmoid(1.702 * t)" in made
    assert "max error " in made and "the worst of 2 tensors" in made  # one block for both rounds of the loop
    assert "the fixed network against the original: approximate: max error " in done.stdout


def test_errors_that_are_left_are_exit_code_1() -> None:
    left = fix(entry="net:beyond_help", inputs=("--input", "2x3x3"))
    assert left.exit_code == 1 and left.stdout.startswith("0 fixes made: ") and " error" in left.stdout
    asked, made = fix(), fix("--approximate")
    assert (asked.exit_code, made.exit_code) == (1, 0), made.stdout


def test_json_says_the_same(here: Path) -> None:
    done = fix("--approximate", "--json")
    said = json.loads(done.stdout)
    assert {each["fix"] for each in said["applied"]} == {"drop_no_effect", "approximate_activation"}
    assert [each["exact"] for each in said["applied"]] == [True, False, False]
    assert all(each["diff"].startswith("--- a/net.py\n") for each in said["applied"])
    assert said["findings_after"] < said["findings_before"]
    assert fix("--approximate", "--format", "json").stdout == done.stdout


def test_the_fixed_network_is_saved_as_a_program(here: Path) -> None:
    done = fix("--out", "made/net.pt2")
    assert done.stdout.splitlines()[-1] == "saved, for torch.export.load: made/net.pt2"
    program = torch.export.load(str(here / "made" / "net.pt2"))
    scope: dict[str, Any] = {}
    exec(compile(NET, "net.py", "exec"), scope)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(program.module()(x), scope["build"]().eval()(x), rtol=1e-5, atol=1e-6)
    assert [str(each.target) for each in program.graph.nodes].count("aten.relu.default") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--approximate"], "--approximate needs --fix"),
        (["--out", "net.pt2"], "--out needs --fix"),
        (["--fix", "--out", "net.onnx"], "--out = 'net.onnx'; the fixed network is saved as a program: give a name"),
        (["--fix", "--out", "net.py/net.pt2"], "--out = 'net.py/net.pt2' cannot be written: "),
        (["--fix", "--out", "folder.pt2"], "--out = 'folder.pt2' cannot be written: it is a folder; give another"),
        (["--fix", "--rule", "dtype"], "--rule is for findings; --fix takes them all, and prints text or --json"),
        (["--fix", "--format", "sarif"], "--format sarif is for findings; --fix takes them all, and prints text"),
        (["--fix", "--baseline", "old.json"], "--baseline is for findings; --fix takes them all"),
        (["--fix", "--target", "h200"], "--target = edge-tpu, h200; --fix rewrites a network for one target at a time"),
    ],
)  # fmt: skip
def test_misuse_is_one_message(
    here: Path, command_line: Callable[..., Any], arguments: list[str], message: str
) -> None:
    (here / "folder.pt2").mkdir()
    done = command_line(here, "lint", "net:build", *INPUT, *TARGET, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bitwright: {message}"), done.stderr


def test_an_onnx_file_is_no_network_to_rewrite() -> None:
    with pytest.raises(InputError, match=r"MODEL = 'net.onnx'; --fix rewrites a network of PyTorch"):
        fix_model("net.onnx", "edge-tpu", [])


def test_nothing_to_fix_is_said_in_one_line() -> None:
    text = fixes_text(fix_model("net:beyond_help", "edge-tpu", ["2x3x3"]))
    assert "\n" not in text and text.startswith("0 fixes made: ")


def test_fixes_are_listed_with_what_they_do() -> None:
    lines = CliRunner().invoke(cli.build_app(), ["ls", "fixes"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["fix", *fix_names()]
    assert any(line.split()[:2] == ["approximate_activation", "approximate"] for line in lines)
