from dataclasses import replace

import pytest

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.finding_text import format_findings, summary
from bitwright.hw_constraints.source_focus import focus
from bitwright.quant.graph import Node, SourceLine

FINDING = Finding(
    rule="operator_support",
    severity=Severity.ERROR,
    node="linalg_inv_0",
    found="linalg_inv: the toolchain has no such operator",
    allowed="operators that it runs",
    suggestion="the inverse in closed form",
    source=SourceLine("net.py", 12, "pose = torch.linalg.inv(pose)"),
    focus="torch.linalg.inv",
    module_path="bev",
)


def test_a_finding_underlines_the_offending_text() -> None:
    assert format_findings([FINDING]) == (
        "error[operator_support] net.py:12 (bev)\n"
        "   12 | pose = torch.linalg.inv(pose)\n"
        "      |        ^^^^^^^^^^^^^^^^\n"
        "found:   linalg_inv: the toolchain has no such operator\n"
        "allowed: operators that it runs\n"
        "instead: the inverse in closed form\n"
        "\n"
        "1 error"
    )


def test_without_a_line_the_node_stands_for_it() -> None:
    finding = Finding(rule="dtype", severity=Severity.WARNING, node="$x", found="a", allowed="b", suggestion="c")
    assert format_findings([finding]).splitlines()[0] == "warning[dtype] $x"


def test_without_a_focus_the_whole_line_is_underlined() -> None:
    whole = Finding(
        rule="r",
        severity=Severity.INFO,
        node="n",
        found="a",
        allowed="b",
        suggestion="c",
        source=SourceLine("f", 1, "xy"),
    )
    assert "\n      | ^^\n" in format_findings([whole])


def test_the_summary_counts_by_severity() -> None:
    warning = Finding(rule="r", severity=Severity.WARNING, node="n", found="a", allowed="b", suggestion="c")
    assert summary([FINDING, FINDING, warning]) == "2 errors, 1 warning"
    assert summary([]) == format_findings([]) == "no findings"


@pytest.mark.parametrize(
    ("op", "module", "text", "expected"),
    [
        ("conv2d", "stem.conv", "x = self.act(self.stem.conv(x))", "self.stem.conv"),
        ("conv2d", "features.0.1", "x = self.features(x)", "self.features"),
        ("conv2d", "blocks.3", "x = self.blocks[i](x)", "self.blocks[i]"),
        ("topk", "head", "v, i = torch.topk(x, 5)", "torch.topk"),
        ("add", "", "return x + y", "+"),
        ("upsample_nearest2d", "", "x = F.interpolate(x, scale_factor=2)", "F.interpolate"),
        ("linalg_inv", "", "p = torch.linalg.inv(q)", "torch.linalg.inv"),
        ("grid_sampler", "", "x = F.grid_sample(x, g)", "F.grid_sample"),
        ("relu", "", "return helper(x)", ""),
        ("add", "n", "convention(x)", ""),
    ],
)
def test_focus(op: str, module: str, text: str, expected: str) -> None:
    node = Node(name="n", op=op, inputs=(), outputs=(), module_path=module, source=SourceLine("net.py", 1, text))
    assert focus(node) == expected


def test_what_is_said_about_one_line_again_is_one_block() -> None:
    again = replace(FINDING, node="linalg_inv_7")
    text = format_findings([FINDING, again])
    assert text.startswith("error[operator_support] net.py:12 (bev), 2 calls\n")
    assert text.count("found:") == 1 and text.endswith("\n\n1 error")


def test_several_accelerators_are_named() -> None:
    text = format_findings([replace(FINDING, target=name) for name in ("h200", "edge-tpu")])
    assert "(bev) on h200\n" in text and "(bev) on edge-tpu\n" in text
