"""The linter says the same about a network and about the ONNX files that are written of it."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.lint_onnx import lint_onnx
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.graph import Graph, TensorKind
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.fold_batch_norm import fold_batch_norms
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize

TARGETS = ("x86-vnni", "tensorrt-orin", "ethos-u85-1024", "edge-tpu", "ti-tda4")


class Detector(nn.Module):
    """Something for most rules: odd channels, a gate, a softmax, a resize, geometry, a head over two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 18, 7, 4, 3, bias=False), nn.BatchNorm2d(18), nn.SiLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(18, 6, 1), nn.ReLU(), nn.Conv2d(6, 18, 1))
        self.down = nn.Sequential(nn.Conv2d(18, 32, 3, 2, 1, groups=2), nn.BatchNorm2d(32), nn.ReLU6())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 18, 2, 2), nn.BatchNorm2d(18), nn.Hardswish())
        self.lateral = nn.Conv2d(32, 18, 1)
        self.head = nn.Conv2d(18, 5, 3, padding=1)
        self.norm = nn.LayerNorm(18)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(x)
        x = x * self.gate(x).sigmoid()
        low = self.down(x)
        high = torch.cat([self.up(low), x], 1)[:, ::2]
        tokens = self.norm(x.flatten(2).transpose(1, 2)).softmax(-1)
        return self.head(self.lateral(low)), self.head(high), tokens, tokens.topk(5, 1)[0]


@pytest.fixture(scope="module")
def captured() -> Any:
    torch.manual_seed(0)
    model = Detector().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    return capture(model, (torch.randn(1, 3, 64, 64),))


def said(findings: tuple[Finding, ...]) -> list[Finding]:
    return sorted(findings, key=repr)


@pytest.mark.parametrize("name", TARGETS)
def test_a_float_file_has_the_findings_of_the_network(name: str, captured: Any, tmp_path: Path) -> None:
    target, folded = load_target(name), fold_batch_norm(captured).graph
    expected = lint(folded, target, plan=plan(folded, target.scheme()))
    assert expected
    for graph in (folded, captured.graph):  # with its batch norms, and without
        findings = lint_onnx(export_float(graph, tmp_path / "model.onnx"), target)
        assert said(findings) == said(expected)


def test_a_quantized_file_has_the_findings_of_its_plan(captured: Any, tmp_path: Path) -> None:
    target = load_target("tensorrt-orin")
    quantized = quantize(fold_batch_norm(captured), target.scheme(), [torch.randn(1, 3, 64, 64)])
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    expected = lint(quantized.captured.graph, target, plan=quantized.plan)
    assert said(lint_onnx(path, target)) == said(expected)


def test_batch_norms_fold_as_they_do_in_the_captured_network(captured: Any) -> None:
    ours, theirs = fold_batch_norms(captured.graph), fold_batch_norm(captured).graph
    assert [node.op for node in ours.nodes] == [node.op for node in theirs.nodes]
    assert [node.inputs for node in ours.nodes] == [node.inputs for node in theirs.nodes]
    assert values(ours).keys() == values(theirs).keys()
    for ref, array in values(theirs).items():
        torch.testing.assert_close(torch.from_numpy(ours.array(ref)), torch.from_numpy(array), rtol=0, atol=0)


def values(graph: Graph) -> dict[Any, Any]:
    return {ref: graph.array(ref) for ref, info in graph.tensors.items() if info.kind is TensorKind.PARAMETER}


def test_a_batch_norm_whose_layer_has_other_readers_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    graph = capture(Shared(), (torch.randn(1, 3, 4, 4),)).graph
    assert [node.op for node in fold_batch_norms(graph).nodes] == [node.op for node in graph.nodes]


# --- from the command line ---


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), ["lint", *arguments])


def test_the_command_takes_an_onnx_file(captured: Any, tmp_path: Path) -> None:
    path = export_float(captured.graph, tmp_path / "model.onnx")
    result = invoke(str(path), "--target", "edge-tpu", "--json")
    report = json.loads(result.output)
    assert result.exit_code == 1
    assert any(Path(__file__).name in json.dumps(finding) for finding in report["findings"])


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"PK\x03\x04 no model", ("--target", "x86-vnni"), "not an ONNX model"),
        (None, ("--target", "x86-vnni"), "model.onnx: no such file"),
        (b"", (), "--target is missing; see `bitwright targets`"),
        (b"", ("--target", "x86-vnni", "--input", "1x3"), "--input = '1x3'; an ONNX file has the shapes of its inputs"),
    ],
)
def test_misuse_is_exit_code_2_without_a_traceback(
    content: bytes | None, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    result = invoke(str(path), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_control_flow_in_a_file_is_a_finding(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 4])
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "body", [], [value])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="branch", then_branch=body, else_branch=body),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "m.onnx")
    assert [node.op for node in graph_from_onnx(tmp_path / "m.onnx").graph.nodes][-1] == "If"
    findings = lint_onnx(tmp_path / "m.onnx", load_target("x86-vnni"), rules=["data_dependent_control_flow"])
    assert [(finding.node, finding.found) for finding in findings] == [
        ("branch", "If: a value decides which operators run, or how often")
    ]
