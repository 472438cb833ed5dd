"""Tables become one only where their latencies compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_tables import DATE, KEY, kernel, network_row, row, session, with_threads, written

from bitwright.hw_constraints.table import KernelRow, KernelTable, merge
from bitwright.quant.errors import InputError


def test_merged_tables_hold_everything_once_the_better_measured(tmp_path: Path) -> None:
    rejected = KernelRow(kernel=kernel(2), date=DATE, rejected="out of memory")
    a = written(tmp_path / "a", [row(1, half_width=0.1), rejected, row(3)], facts={"overheads": 1, "a": 1})
    rows = [row(1, half_width=0.01), row(2), row(4), network_row()]
    b = written(tmp_path / "b", rows, sessions=[session("later")], facts={"overheads": 2})
    assert merge([a, b], tmp_path / "ab") == 2
    assert merge([b, a], tmp_path / "ba") == 2
    merged = KernelTable.load(tmp_path / "ab")
    assert {each.key: each for each in merged.rows} == {each.key: each for each in (*rows[:3], row(3))}
    assert merged.networks == (network_row(),)
    assert len(merged.sessions) == 2
    assert merged.facts == {"overheads": 1, "a": 1}
    assert merged.rows == KernelTable.load(tmp_path / "ba").rows


def test_a_table_merged_with_itself_is_itself(tmp_path: Path) -> None:
    a = written(tmp_path / "a", [row(1), row(2), network_row()])
    merge([a, a], tmp_path / "aa")
    assert KernelTable.load(tmp_path / "aa").content_hash == a.content_hash


def test_tables_of_different_things_do_not_merge(tmp_path: Path) -> None:
    a = written(tmp_path / "a", [row(1)])
    b = written(tmp_path / "b", [row(1)], key=with_threads(2))
    with pytest.raises(InputError, match=r"b: differs from .*a: threads 1, here 2; tables merge where "):
        merge([a, b], tmp_path / "ab")
    with KernelTable.writing(tmp_path / "c", KEY, {"another": "reference"}) as c:
        c.add([row(1)], sessions=[session()])
    with pytest.raises(InputError, match=r"c: its reference kernel is not that of .*a: ratios do not compare"):
        merge([a, KernelTable.load(tmp_path / "c")], tmp_path / "ac")
    with pytest.raises(InputError, match="a: exists already; a merged table is a new file"):
        merge([a, a], tmp_path / "a")
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix != ".lock") == ["a", "b", "c"]
