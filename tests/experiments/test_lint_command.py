"""`bitwright lint` as a person or a pipeline meets it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft4Validator
from torch import nn
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.experiments.lint_command import unused_modules
from bitwright.hw_constraints.lint import rule_names
from bitwright.quant.capture import capture

SCHEMA = Path(__file__).parents[1] / "hw_constraints" / "lint_report" / "sarif-2.1.0-rtm.5.json"
NET = """\
import torch
import torch.nn.functional as F


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.aux = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(16, 16)

    def forward(self, image, pose):
        world = torch.linalg.inv(pose)
        x = torch.sin(F.relu(self.stem(image)))
        return self.head(x.mean((2, 3))) + world[:, 0, :1]


class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Stem()

    def forward(self, image):
        x = self.stem(image)
        if x.mean() > 0:
            x = x * 2
        for _ in range(int(x.max())):
            x = x + 1
        return x


class Stem(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 61, 3)
        self.out = torch.nn.Conv2d(61, 64, 3)

    def forward(self, image):
        return self.out(self.conv(image))


def build():
    return Net()


def branching():
    return Branching()
"""
INPUTS = ("--input", "1x3x16x16", "--input", "1x4x4")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


def lint(*arguments: str, entry: str = "net:build", inputs: tuple[str, ...] = INPUTS) -> Any:
    return CliRunner().invoke(cli.build_app(), ["lint", entry, *inputs, *arguments])


@pytest.mark.usefixtures("here")
def test_errors_are_exit_code_1_and_several_targets_are_named() -> None:
    done = lint("--target", "x86-vnni", "--target", "ethos-u85-1024")
    assert done.exit_code == 1
    heads = [line for line in done.stdout.splitlines() if line.startswith(("error", "warning"))]
    assert "error[operator_support] " in heads[0] and heads[0].endswith("net.py:13 on x86-vnni")
    assert any("[float_island]" in head and head.endswith("on x86-vnni") for head in heads)
    assert any("[partition_break]" in head and head.endswith("on ethos-u85-1024") for head in heads)
    assert any("[dead_branch] aux (aux) on x86-vnni" in head for head in heads)


def test_three_accelerators_refuse_the_example_for_three_reasons() -> None:
    entry = "bitwright.experiments.models.panorama:build"
    targets = ("edge-tpu", "orin-dla", "ethos-u55-128")
    done = lint(*(f"--target={each}" for each in targets), "--json", entry=entry, inputs=())
    assert done.exit_code == 1
    errors = [each for each in json.loads(done.stdout)["findings"] if each["severity"] == "error"]
    said = {target: [each["found"] for each in errors if each["target"] == target] for target in targets}
    assert said["edge-tpu"] == [
        "leaky_relu: runs on the processor beside the accelerator",
        "leaky_relu on the host cuts the network: 74 % of the products come behind it, on the host as well",
    ]
    assert said["orin-dla"] == ["cat with axis = 3"]
    assert [each.partition(" with ")[0] for each in said["ethos-u55-128"]] == ["upsample_bilinear2d"]
    lines = {each["target"]: each["source"]["text"] for each in errors if each["rule"] == "shape_limits"}
    assert lines["orin-dla"].startswith("both = torch.cat(") and "scale_factor=4" in lines["ethos-u55-128"]


def test_help_shows_the_comment_as_it_is_written() -> None:
    shown = CliRunner().invoke(cli.build_app(), ["lint", "--help"]).stdout
    assert "# bitwright: ignore[rule]" in shown


@pytest.mark.usefixtures("here")
def test_json_says_everything() -> None:
    done = lint("--target", "x86-vnni", "--json")
    found = json.loads(done.stdout)["findings"]
    inverse = next(each for each in found if each["rule"] == "operator_support")
    assert inverse["source"]["text"] == "world = torch.linalg.inv(pose)" and inverse["focus"] == "torch.linalg.inv"
    assert (inverse["status"], inverse["target"], inverse["cost_us"]) == ("new", "x86-vnni", None)
    assert lint("--target", "x86-vnni", "--format", "json").stdout == done.stdout


@pytest.mark.usefixtures("here")
def test_sarif_from_the_command_line_is_valid() -> None:
    log = json.loads(lint("--target", "x86-vnni", "--format", "sarif").stdout)
    Draft4Validator(json.loads(SCHEMA.read_text())).validate(log)
    assert {each["ruleId"] for each in log["runs"][0]["results"]} >= {"operator_support", "float_island"}


@pytest.mark.usefixtures("here")
def test_annotations() -> None:
    lines = lint("--target", "x86-vnni", "--format", "github").stdout.splitlines()
    assert lines[0].startswith("::error file=net.py,line=13,title=operator_support (x86-vnni)::linalg_inv")


def test_a_comment_takes_a_finding_back(here: Path) -> None:
    mended = NET.replace("inv(pose)", "inv(pose)  # bitwright: ignore[operator_support]: once a drive")
    (here / "net.py").write_text(mended + "# bitwright: ignore[dtyp]\n")
    done = lint("--target", "x86-vnni", "--rule", "operator_support")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "no findings (1 ignored in the source)"
    assert "ignore[dtyp]: there is no such rule (did you mean 'dtype'?)" in done.stdout


def test_a_baseline_silences_what_was_there(here: Path) -> None:
    written = lint("--target", "x86-vnni", "--baseline", "old.json", "--write-baseline")
    assert written.exit_code == 0 and written.stdout == "old.json: 3 findings\n"
    assert lint("--target", "x86-vnni", "--baseline", "old.json").exit_code == 0
    # Another line above, and the same code is still old; new code is not.
    (here / "net.py").write_text(
        "# moved\n"
        + NET.replace(
            "        return self.head", "        pose = torch.inverse(pose)\n        return self.head"
        ).replace("world[:, 0, :1]", "world[:, 0, :1] + pose[:, 1, :1]")
    )
    sys.modules.pop("net")
    done = lint("--target", "x86-vnni", "--baseline", "old.json")
    assert done.exit_code == 1 and done.stdout.splitlines()[-1] == "1 error (3 known from the baseline)"
    assert "pose = torch.inverse(pose)" in done.stdout


@pytest.mark.usefixtures("here")
def test_what_cannot_be_captured_whole_is_linted_in_regions() -> None:
    done = lint("--target", "x86-vnni", entry="net:branching", inputs=("--input", "1x3x16x16"))
    assert done.exit_code == 1
    for text in (
        "if x.mean() > 0:",
        "for _ in range(int(x.max())):",
        "61 channels",
        "return self.out(self.conv(image))",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing: package.module:function that returns the network, a recipe or an ONNX file"),
        (["net:build"], "--input is missing: the shape of an example input, such as --input 1x3x224x224"),
        (["net:build", *INPUTS], "--target is missing; see `bitwright targets`"),
        (["net:build", *INPUTS, "--target", "h20"], "unknown target 'h20'; there are: "),
        (["net:build", *INPUTS, "--target", "h200", "--rule", "dtyp"], "unknown rule 'dtyp'; there are: "),
        (["--explain", "dtyp"], "unknown rule 'dtyp'; there are: "),
        (["net:build", "--write-baseline"], "--write-baseline needs --baseline FILE: where to write it"),
        (["net:build", "--baseline", "none.json"], "none.json: no such file; write it with --write-baseline"),
    ],
)
def test_misuse_is_one_message(
    here: Path, command_line: Callable[..., Any], arguments: list[str], message: str
) -> None:
    done = command_line(here, "lint", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"bitwright: {message}"), done.stderr


@pytest.mark.parametrize("rule", rule_names())
def test_every_rule_explains_itself(rule: str) -> None:
    done = CliRunner().invoke(cli.build_app(), ["lint", "--explain", rule])
    assert done.exit_code == 0
    title, knows, *examples = done.stdout.split("\n\n")
    assert title.startswith(f"{rule}: ") and len(knows) > 20
    assert "It speaks at:\n    " in done.stdout and "Write instead:\n    " in done.stdout and examples


def test_rules_are_listed_with_what_they_look_for() -> None:
    lines = CliRunner().invoke(cli.build_app(), ["ls", "rules"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["rule", *rule_names()] and len(rule_names()) >= 30
    assert any("align_corners=True" in line for line in lines)


class _Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.aux = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.position = nn.Embedding(8, 4)
        self.tied = self.used
        self.drop = nn.Dropout()
        self.functional = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.aux(self.used(x))
        x = self.drop(self.used(x)).mean((2, 3)) + self.position(torch.arange(1))
        return nn.functional.linear(x, self.functional.weight)


def test_modules_that_take_no_part() -> None:
    model = _Parts()
    graph = capture(model, (torch.randn(1, 3, 8, 8),)).graph
    assert list(unused_modules(model, graph)) == ["aux"]
