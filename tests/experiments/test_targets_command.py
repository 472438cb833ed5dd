"""`bitwright targets`: the list, a page, the operators of one, and the difference of two."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability

REQUIRED = [
    *("x86-vnni", "arm-xnnpack", "tensorrt-orin", "orin-dla", "tensorrt-thor", "h200", "tesla-fsd-hw3"),
    *("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024", "edge-tpu", "ti-tda4", "amd-dpu", "hexagon-htp"),
]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), ["targets", *arguments])


def test_the_list_has_every_target_with_what_it_serves() -> None:
    result = invoke()
    assert result.exit_code == 0 and set(REQUIRED) <= set(list_targets())
    assert all(name in result.stdout for name in list_targets())
    served = {each["id"]: each["capabilities"] for each in json.loads(invoke("--json").stdout)}
    assert set(served) == set(list_targets()) and served["hexagon-htp"] == ["lint", "scheme"]


def test_pages() -> None:
    assert invoke("amd-dpu").stdout.startswith("# amd-dpu, version ")
    assert invoke("amd-dpu", "--operators").stdout.startswith("# Operators of amd-dpu, version ")
    assert json.loads(invoke("amd-dpu", "--json").stdout)["id"] == "amd-dpu"


def test_differences() -> None:
    page = invoke("diff", "x86-vnni", "x86-avx2")
    assert page.exit_code == 0 and page.stdout.startswith("# x86-vnni and x86-avx2\n")
    (found,) = json.loads(invoke("diff", "x86-vnni", "x86-avx2", "--json").stdout)
    assert found["section"] == "Numerics" and found["what"] == "weights" and found["right"].startswith("int7")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("id: mine\nversion: 1\ndescription: Mine.\nextends: ethos-u85-1024\n")
    result = invoke("diff", "ethos-u85-1024", str(path))
    assert result.exit_code == 0 and "They say the same." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff"], "targets diff: give one target, or diff and two of them"),
        (["diff", "h200"], "targets diff h200: give one target, or diff and two of them"),
        (["h200", "edge-tpu"], "targets h200 edge-tpu: give one target, or diff and two of them"),
        (["diff", "h200", "edge-tpy"], "unknown target 'edge-tpy'; there are: "),
        (["none.yaml"], "none.yaml: no such target file; targets by name: "),
    ],
)
def test_misuse(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output


def test_one_table_says_what_becomes_of_each_operator_on_every_target() -> None:
    lines = invoke("--operators").stdout.splitlines()
    numbers = {line.split(". ")[1]: int(line.split(". ")[0]) for line in lines if re.match(r"\d+\. ", line)}
    assert set(numbers) == set(list_targets())
    rows = {cells[1]: cells[1:] for line in lines if len(cells := [c.strip() for c in line.split("|")]) > 3}
    found = json.loads(invoke("--operators", "--json").stdout)
    signs = {"in low precision": "q", "passes codes on": "=", "taken apart": "/", "in floating point": "f",
             "on the host": "h", "refused": "-"}  # fmt: skip
    for op, by_target in found.items():
        assert [rows[op][numbers[name]] for name in by_target] == [signs[each] for each in by_target.values()]
    assert rows["conv2d"][numbers["x86-vnni"]] == rows["linear"][numbers["ethos-u85-1024"]] == "q"
    for target in map(load_target, list_targets()):
        if Capability.SCHEME in target.capabilities:
            quantized = {op for op, by_target in found.items() if by_target[target.id] == "in low precision"}
            assert quantized <= target.scheme().quantized_operators
