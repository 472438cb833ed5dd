"""The linter from a PyTorch module to the text on the screen."""

import time
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.finding_text import format_findings
from bitwright.hw_constraints.lint import lint, load_rule, rule_names
from bitwright.hw_constraints.lint_context import LintContext
from bitwright.hw_constraints.target import Capability, list_targets, load_target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant import extension_point
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan


class Perception(nn.Module):
    """A network with one trouble a line."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(24, 8, 4, 2, 1)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10)

    def forward(self, image: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.grouped(self.stem(image)))
        x = self.up(x)
        world = torch.linalg.inv(pose)
        grid = F.affine_grid(world[:, :2], list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        x = self.norm(x.permute(0, 2, 3, 1))
        return self.head(x.mean((1, 2)))


class Clean(nn.Module):
    """A network that every target runs whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.block(x) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:
            return x
        return x * 2


@pytest.fixture(scope="module")
def perception() -> Graph:
    return fold_batch_norm(capture(Perception(), (torch.randn(1, 3, 32, 32), torch.eye(3)[None]))).graph


def places(findings: tuple[Finding, ...]) -> set[tuple[str, str, str]]:
    return {(each.rule, each.severity.value, each.focus) for each in findings}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "x86-vnni",
            {
                ("operator_support", "warning", "self.up"),
                ("operator_support", "error", "torch.linalg.inv"),
                ("sampling", "warning", "F.grid_sample"),
            },
        ),
        (
            "tensorrt-orin",
            {
                ("shape_limits", "warning", "self.grouped"),
                ("operator_support", "error", "torch.linalg.inv"),
                ("sampling", "warning", "F.grid_sample"),
            },
        ),
        (
            "h200",
            {
                ("operator_support", "warning", "self.up"),
                ("operator_support", "error", "torch.linalg.inv"),
                ("shape_limits", "warning", "self.head"),
                ("sampling", "warning", "F.grid_sample"),
            },
        ),
        (
            "ethos-u85-1024",
            {
                ("operator_support", "error", "torch.linalg.inv"),
                ("operator_support", "error", "F.affine_grid"),
                ("operator_support", "error", "F.grid_sample"),
                ("dtype", "warning", "self.norm"),
            },
        ),
    ],
)
def test_one_network_four_accelerators(target: str, expected: set[tuple[str, str, str]], perception: Graph) -> None:
    loaded = load_target(target)
    findings = lint(perception, loaded, plan=plan(perception, loaded.scheme()))
    # What is only mentioned may change with a target's layouts; its errors and warnings may not.
    assert {each for each in places(findings) if each[1] != "info"} == expected
    for finding in findings:
        assert finding.source and finding.source.file == __file__
        with open(__file__) as file:
            assert file.read().splitlines()[finding.source.line - 1].strip() == finding.source.text


@pytest.mark.parametrize("target", list_targets())
def test_a_clean_network_is_clean_everywhere(target: str) -> None:
    graph = fold_batch_norm(capture(Clean(), (torch.randn(1, 16, 32, 32),))).graph
    loaded = load_target(target)
    found = lint(graph, loaded, plan=plan(graph, loaded.scheme()))
    floating = 0 if "conv2d" in loaded.operators.quantized else 2  # of targets that have linear layers alone in codes
    assert [each.rule for each in found if each.severity is not Severity.INFO] == ["operator_support"] * floating


def test_control_flow_is_reported_at_its_line() -> None:
    with pytest.raises(CaptureError, match="cannot be captured") as caught:
        capture(Branching(), (torch.randn(2, 2),))
    findings = lint(None, load_target("x86-vnni"), capture_failures=[caught.value.failure])
    assert [each.rule for each in findings] == ["data_dependent_control_flow"]
    assert "if x.mean() > 0:" in format_findings(findings) and "torch.where" in findings[0].suggestion


def test_errors_come_first_and_then_the_order_of_the_graph(perception: Graph) -> None:
    findings = lint(perception, load_target("h200"))
    assert [each.severity.value for each in findings] == ["error", *["warning"] * 3]
    assert [each.focus for each in findings] == ["torch.linalg.inv", "self.up", "F.grid_sample", "self.head"]


def test_single_rules_can_be_asked_for(perception: Graph) -> None:
    findings = lint(perception, load_target("h200"), rules=["shape_limits"])
    assert {each.rule for each in findings} == {"shape_limits"}


def test_an_unknown_rule_lists_the_choices(perception: Graph) -> None:
    with pytest.raises(InputError, match=r"unknown rule 'dtypes'; there are: .*dtype.* \(did you mean 'dtype'\?\)"):
        lint(perception, load_target("h200"), rules=["dtypes"])


def test_a_target_that_cannot_be_linted_by_says_so(perception: Graph) -> None:
    from dataclasses import replace

    target = replace(load_target("h200"), capabilities=frozenset({Capability.SCHEME}))
    with pytest.raises(InputError, match=r"target 'h200' does not serve lint; its file says enough for: scheme"):
        lint(perception, target)


class _Shouting:
    name = "shouting"
    summary = "says something about every network"
    bad = "x"
    good = "y"

    def check(self, context: LintContext) -> Any:
        yield Finding(rule=self.name, severity=Severity.INFO, node="", found="a", allowed="b", suggestion="c")


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    point = EntryPoint(request.param, "vendor:Rule", "bitwright.rules")
    monkeypatch.setattr(EntryPoint, "load", lambda self: _Shouting)
    monkeypatch.setattr(
        extension_point.importlib.metadata,
        "entry_points",
        lambda *, group, name=None: [point] if group == point.group and name in (None, point.name) else [],
    )


@pytest.mark.parametrize("_registered", ["shouting"], indirect=True)
@pytest.mark.usefixtures("_registered")
def test_another_package_registers_a_rule(perception: Graph) -> None:
    assert "shouting" in rule_names() and load_rule("shouting").name == "shouting"
    assert "shouting" in {each.rule for each in lint(perception, load_target("h200"))}


@pytest.mark.parametrize("_registered", ["dtype"], indirect=True)
@pytest.mark.usefixtures("_registered")
def test_a_rule_registered_twice() -> None:
    with pytest.raises(InputError, match=r"rule 'dtype' is registered twice"):
        rule_names()


def test_five_hundred_layers_take_less_than_a_second() -> None:
    b = GraphBuilder()
    x = b.input(1, 16, 16, 16)
    for _ in range(250):
        x = b.call("relu", b.conv2d(x, 16), shape=(1, 16, 16, 16))
    graph, target = b.graph(x), load_target("ethos-u85-1024")
    made = plan(graph, target.scheme())
    lint(graph, target, plan=made)  # rules are imported once
    start = time.process_time()
    assert lint(graph, target, plan=made) == ()
    assert time.process_time() - start < 1.0


def test_an_open_batch_hides_nothing() -> None:
    b = GraphBuilder()
    x = b.input(None, 8, 16, 16)
    y = b.call("conv_transpose2d", x, b.parameter(8, 8, 2, 2), None, shape=(None, 8, 32, 32), stride=(2, 2))
    (finding,) = lint(b.graph(y), load_target("x86-vnni"))
    assert finding.rule == "operator_support" and finding.severity is Severity.WARNING
