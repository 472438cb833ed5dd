from pathlib import Path

import pytest
from pydantic import ValidationError

from bitwright.nas.result import Outcome, Result, ResultFiles, Violation
from bitwright.quant.errors import InputError

RESULT = Result(
    key="0123456789abcdef",
    values={"width": 0.5, "depth": 2, "format_0": "int8"},
    outcome=Outcome.INFEASIBLE,
    stage="lint",
    violations=(Violation(constraint="lint.dtype", amount=2.0, reason="int16"),),
    seconds={"lint": 0.1},
)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    files = ResultFiles(tmp_path)
    files.put(RESULT)
    back = files.get(RESULT.key)
    assert back == RESULT
    assert back is not None
    assert [type(each) for each in back.values.values()] == [float, int, str]


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    ResultFiles(tmp_path).put(RESULT)
    assert [path.name for path in tmp_path.iterdir()] == [f"{RESULT.key}.json"]


def test_an_unknown_candidate_has_no_result(tmp_path: Path) -> None:
    assert ResultFiles(tmp_path).get("f" * 16) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"{RESULT.key}.json"
    path.write_bytes(b'{"key": "0123')
    with pytest.raises(InputError, match=rf"{path}: not a result .*; remove it to evaluate {RESULT.key} again"):
        ResultFiles(tmp_path).get(RESULT.key)


def test_nan_is_no_figure() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Result.model_validate({**RESULT.model_dump(), "figures": {"accuracy": float("nan")}})
