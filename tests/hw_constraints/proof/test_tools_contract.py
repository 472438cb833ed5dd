"""What every tool must do whose report is read: `hw_constraints/proof/tools/NAME.py`."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from bitwright.hw_constraints.proof.tools.base import Tool, get_tool, list_tools, read_with
from bitwright.hw_constraints.proof.tools.report_file import read_report_file
from bitwright.quant.errors import InputError

REPORTS = Path(__file__).parent / "reports"
FILES = {tool: sorted((REPORTS / tool).iterdir()) for tool in list_tools()}
TEXTS = [(tool, file) for tool, files in FILES.items() for file in files if file.suffix != ".onnx"]


def one_of_each_role(tool: Tool) -> dict[str, Any]:
    return {str(tool.role(file)): file for file in map(read_report_file, reversed(FILES[tool.name]))}


@pytest.fixture(params=list_tools())
def tool(request: pytest.FixtureRequest) -> Tool:
    found = get_tool(request.param)
    assert isinstance(found, Tool) and found.name == request.param
    return found


def test_it_knows_its_own_files_and_no_others(tool):
    for owner, files in FILES.items():
        roles = [tool.role(read_report_file(file)) for file in files if file.suffix != ".onnx"]
        assert all(roles) if owner == tool.name else not any(roles), (owner, roles)


def test_it_reads_kernels_with_times_and_names(tool):
    report = tool.read(one_of_each_role(tool))
    names = [kernel.name for kernel in report.kernels]
    assert len(set(names)) == len(names) > 3
    assert [node.name for node in report.executed] == names
    assert all(math.isfinite(kernel.time_us) and kernel.time_us >= 0 for kernel in report.kernels)
    assert sum(kernel.time_us for kernel in report.kernels) > 0
    assert report.origin in ("measured", "modelled")


def test_it_says_a_command_that_can_be_pasted(tool):
    lines = tool.how(Path("nets/my net.onnx")).splitlines()
    assert any(line.startswith("bitwright prove 'nets/my net.onnx' --from ") for line in lines)
    assert not any(line.startswith(" ") or line.endswith(" ") for line in lines)


@pytest.mark.parametrize(("name", "file"), TEXTS, ids=lambda value: getattr(value, "name", value))
def test_a_file_that_is_cut_off_is_one_message(name, file, tmp_path):
    """Wherever it ends: an `InputError`, or, for a table that ends with a line, what stands there."""
    text = file.read_text()
    for part in range(1, 60):
        cut = tmp_path / file.name
        cut.write_text(text[: len(text) * part // 60])
        roles = {get_tool(name).role(read_report_file(file)): cut}
        try:
            files = {str(role): read_report_file(path) for role, path in roles.items()}
            if get_tool(name).role(next(iter(files.values()))) is not None:
                read_with(get_tool(name), files)
        except InputError as error:
            assert str(cut) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(("name", "file"), [case for case in TEXTS if case[1].suffix == ".json"], ids=str)
def test_json_that_lacks_something_is_one_message(name, file, tmp_path):
    """Each key of the first entries left out, and each value replaced by another type."""
    whole = json.loads(file.read_text())
    for place in places(whole):
        for change in ("leave out", "text", None, []):
            damaged = copy.deepcopy(whole)
            owner = damaged
            for step in place[:-1]:
                owner = owner[step]
            if change == "leave out":
                del owner[place[-1]]
            else:
                owner[place[-1]] = change
            (tmp_path / file.name).write_text(json.dumps(damaged))
            read = read_report_file(tmp_path / file.name)
            role = get_tool(name).role(read)
            if role is None:
                continue
            try:
                read_with(get_tool(name), {role: read})
            except InputError as error:
                assert "\n" not in str(error)


def places(value: Any, depth: int = 0) -> list[tuple[Any, ...]]:
    if depth > 6 or not isinstance(value, dict | list):
        return []
    steps = list(value)[:12] if isinstance(value, dict) else list(range(min(3, len(value))))
    return [(step, *rest) for step in steps for rest in [(), *places(value[step], depth + 1)]]
