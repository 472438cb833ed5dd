"""A table as Parquet, read back by pyarrow."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from made_up_tables import DATE, kernel, row, written

from bitwright.hw_constraints.table import KernelRow
from bitwright.hw_constraints.table.parquet import export_parquet
from bitwright.quant.errors import InputError, MissingExtraError


def test_columns_and_what_they_hold_for(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rejected = KernelRow(kernel=kernel(9), date=DATE, rejected="no such kernel")
    table = written(tmp_path / "table", [row(3, ratio=0.5), row(4, ratio=2.0), rejected])
    assert export_parquet(table, tmp_path / "table.parquet") == 3
    read = parquet.read_table(tmp_path / "table.parquet")
    lines = {json.loads(line["kernel"])["inputs"][0][1]: line for line in read.to_pylist()}
    assert {channels: line["latency_us"] for channels, line in lines.items()} == {3: 120.0, 4: 480.0, 9: None}
    assert lines[4]["macs"] == 4 * 4 * 64 and lines[4]["family"] == "pointwise" and lines[4]["placements"] == 6
    assert lines[9]["rejected"] == "no such kernel" and lines[9]["ratio"] is None
    about = json.loads(read.schema.metadata[b"bitwright"])
    assert about["content_hash"] == table.content_hash and about["key"] == table.key.to_json()


def test_without_pyarrow_the_message_is_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *more, **named)

    table = written(tmp_path / "table", [row(3)])
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"a Parquet file needs: pip install 'bitwright\[parquet\]'"):
        export_parquet(table, tmp_path / "table.parquet")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="No such file or directory"):
        export_parquet(written(tmp_path / "table", [row(3)]), tmp_path / "none" / "table.parquet")
