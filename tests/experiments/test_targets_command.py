"""`bitwright targets`: the list, a page, the operators of one, and the difference of two."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.hw_constraints.target import list_targets

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
