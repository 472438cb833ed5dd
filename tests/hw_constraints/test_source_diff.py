"""The change to make by hand: in place where the call can be told from the line, as a comment where it cannot."""

from pathlib import Path

import pytest

from bitwright.hw_constraints.fixes.base import ByHand
from bitwright.hw_constraints.source_diff import source_diff
from bitwright.quant.graph import Node, SourceLine

SOURCE = """\
import torch.nn.functional as F

def forward(self, x, m):
    x = self.act(self.conv(x + 1))
    y = F.gelu(x) + F.gelu(x * 2)
    z = F.hardswish(
        y - x
    )
    z[m] = torch.relu(z[m])
    return self.layers(z).permute(0, 2, 1)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


def node(file: Path, line: int, op: str, module: str = "") -> Node:
    text = SOURCE.splitlines()[line - 1].strip()
    return Node(name=op, op=op, inputs=(), outputs=(), module_path=module, source=SourceLine(str(file), line, text))


def changes(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_the_call_of_a_module_is_replaced(file: Path) -> None:
    diff = source_diff(node(file, 4, "silu", "block.act"), ByHand(expression="{x} * torch.sigmoid({x})"))
    assert diff.startswith(f"--- a{file}\n+++ b{file}\n@@")  # outside of the working directory: from the root
    assert changes(diff) == [
        "-    x = self.act(self.conv(x + 1))",
        "+    x = (t := self.conv(x + 1)) * torch.sigmoid(t)",  # the layer runs once
    ]


def test_an_operand_that_is_no_single_term_gets_brackets(file: Path) -> None:
    diff = source_diff(node(file, 4, "conv2d", "block.conv"), ByHand(expression="{call}(F.pixel_unshuffle({x}, 2))"))
    assert changes(diff)[1] == "+    x = self.act(self.conv(F.pixel_unshuffle((x + 1), 2)))"


def test_a_call_over_several_lines_is_replaced_whole(file: Path) -> None:
    diff = source_diff(
        node(file, 6, "hardswish"), ByHand(expression="{x} * F.relu6({x} + 3) / 6", note="by definition")
    )
    assert changes(diff) == [
        "-    z = F.hardswish(",
        "-        y - x",
        "-    )",
        "+    # by definition",
        "+    z = (t := (y - x)) * F.relu6(t + 3) / 6",
    ]


def test_a_method_is_called_on_its_tensor(file: Path) -> None:
    diff = source_diff(node(file, 10, "permute"), ByHand(expression="{x}"))
    assert changes(diff)[1] == "+    return self.layers(z)"


def test_an_assignment_through_a_mask(file: Path) -> None:
    diff = source_diff(node(file, 9, "index_put"), ByHand(expression="{x} = torch.where({index}, {value}, {x})"))
    assert changes(diff)[1] == "+    z = torch.where(m, torch.relu(z), z)"


def test_two_such_calls_on_a_line_get_a_comment(file: Path) -> None:
    diff = source_diff(node(file, 5, "gelu"), ByHand(expression="{x} * torch.sigmoid(1.702 * {x})"))
    assert changes(diff) == ["+    # write x * torch.sigmoid(1.702 * x)"]


def test_what_lies_inside_a_container_gets_a_comment(file: Path) -> None:
    diff = source_diff(node(file, 10, "silu", "layers.3"), ByHand(expression="{x}", note="another activation"))
    assert changes(diff) == ["+    # layers.3: another activation"]


def test_a_file_that_cannot_be_read_is_shown_by_its_line() -> None:
    gone = Node(name="n", op="relu", inputs=(), outputs=(), source=SourceLine("gone.py", 7, "x = F.relu(F.relu(x))"))
    assert changes(source_diff(gone, ByHand(note="once is enough"))) == ["+# once is enough"]


def test_without_a_line_there_is_no_diff() -> None:
    assert source_diff(Node(name="n", op="relu", inputs=(), outputs=()), ByHand(note="x")) == ""


def test_the_users_file_stays_as_it_is(file: Path) -> None:
    source_diff(node(file, 4, "silu", "block.act"), ByHand(expression="{x}"))
    assert file.read_text() == SOURCE
