"""`bitwright measure kernels|show|merge|export`: tables as a person meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.table.reference import REFERENCE

BITWRIGHT = [sys.executable, "-m", "bitwright.experiments.cli"]
QUICK = ("--runtime", "onnxruntime", "--families", "activation,pool", "--formats", "float32", "--half-width", "1.0")


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), ["measure", *arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured for a few seconds."""
    path = tmp_path_factory.mktemp("tables") / "a.table"
    done = invoke("kernels", *QUICK, "--minutes", "0.1", "--out", str(path), "--quiet", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kernels"] == len(KernelTable.load(path).measured) > 0
    assert set(said["groups"]) <= {"activation float32", "pool float32"}
    return path


def test_a_table_says_what_is_in_it(table: Path) -> None:
    loaded = KernelTable.load(table, key=TableKey.here("onnxruntime", 1))
    assert "fusion_rules" in loaded.facts
    assert all(row.ratio > 0 for row in loaded.measured if row.kernel.bytes > 2**18)
    said = json.loads(invoke("show", str(table), "--json").stdout)
    assert said["content_hash"] == loaded.content_hash
    text = invoke("show", str(table)).stdout
    assert f"content {loaded.content_hash}" in text and "of the samples were disturbed and dropped" in text


@pytest.mark.slow
def test_the_same_command_goes_on_until_the_table_has_had_its_minutes(table: Path) -> None:
    before = KernelTable.load(table)
    arguments = ("kernels", *QUICK, "--out", str(table))
    done = invoke(*arguments, "--minutes", "0.01")
    assert f"{table} has had its 0.01 minutes; give more --minutes to go on" in done.stderr
    assert KernelTable.load(table).content_hash == before.content_hash
    had = sum(each.seconds for each in before.sessions) / 60
    assert invoke(*arguments, "--minutes", str(had + 0.05)).exit_code == 0
    after = KernelTable.load(table)
    assert len(after.sessions) == 2 and len(after) > len(before)
    assert {row.key: row for row in before.rows}.items() <= {row.key: row for row in after.rows}.items()


@pytest.mark.slow
def test_a_killed_and_an_interrupted_command_leave_a_table_to_go_on_with(tmp_path: Path) -> None:
    path = tmp_path / "t.table"
    command = [*BITWRIGHT, "measure", "kernels", *QUICK, "--minutes", "5", "--out", str(path)]
    for how, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        before = _rows(path)
        for _ in range(600):
            if _rows(path) > before or process.poll() is not None:
                break
            time.sleep(0.2)
        os.kill(process.pid, how)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code
        assert _rows(path) > before
        assert "Traceback" not in said
    assert re.search(r"stopped; measured kernels are kept, go on with: bitwright measure kernels .*--out \S+", said)
    assert len(KernelTable.load(path).sessions) == 2


def _rows(path: Path) -> int:
    return len(KernelTable.load(path)) if path.exists() else 0


def test_tables_merge_and_go_to_parquet(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    done = invoke("merge", str(table), str(table), "--out", str(tmp_path / "both.table"))
    loaded = KernelTable.load(table)
    rows, networks = len(loaded), len(loaded.networks)
    counts = f"{rows} kernels and {networks} networks, {rows + networks} of them in several tables"
    assert done.stdout == f"{tmp_path / 'both.table'}: {counts}\n"
    again = json.loads(invoke("merge", str(table), "--out", str(tmp_path / "one.table"), "--json").stdout)
    assert again == {
        "table": str(tmp_path / "one.table"),
        "kernels": rows,
        "networks": networks,
        "in_several": 0,
        "content_hash": loaded.content_hash,
    }
    file = tmp_path / "t.parquet"
    assert invoke("export", str(table), "--parquet", str(file)).stdout == f"{file}: {rows} rows\n"
    done = invoke("export", str(table), "--parquet", str(file), "--json")
    assert json.loads(done.stdout) == {"file": str(file), "rows": rows}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "--target", "h200"), "target 'h200': none of its runtimes is here ("),
        (("kernels", "--runtime", "nonsense"), "unknown backend 'nonsense'; there are: "),
        (("kernels", "--target", "h20"), "unknown target 'h20'; there are: "),
        (
            ("kernels", "--target", "x86-vnni", "--runtime", "inductor"),
            "--runtime = 'inductor'; 'x86-vnni' runs in onnxruntime, openvino, not in 'inductor'",
        ),
        (("kernels", "--runtime", "onnxruntime", "--families", "conv,cov"), "--families = cov; there are: conv, "),
        (("kernels", "--runtime", "onnxruntime", "--formats", "int4"), "--formats = int4; there are: float32, int8"),
        (("kernels", "--runtime", "onnxruntime", "--threads", "0"), "threads = 0; at least 1 is needed"),
        (("kernels", "--runtime", "onnxruntime", "--minutes", "nan"), "--minutes = nan; expected a number above 0"),
        (("kernels", "--runtime", "onnxruntime", "--half-width", "0"), "--half-width = 0; expected a number above 0"),
        (("kernels", "--runtime", "onnxruntime", "--seed", "-1"), "--seed = -1; expected 0 or more\n"),
        (("kernels", "--runtime", "onnxruntime", "--formats", ","), "--formats names none; there are: float32, int8\n"),
        (("kernels", "--runtime", "onnxruntime", "--threads", "9999"), "--threads = 9999; this process may use "),
        (("kernels", "--runtime", "onnxruntime", "--out", "."), "--out = '.': is a folder; name a file in it\n"),
        (("show", "."), ".: is a folder; name a table\n"),
        (("show", "none.table"), "none.table: no such file"),
        (("merge", "none.table", "--out", "new.table"), "none.table: no such file"),
        (("export", "none.table", "--parquet", "new.parquet"), "none.table: no such file"),
        (("merge", "none.table", "--out", "."), "--out = '.': is a folder; name a file in it\n"),
        (
            ("export", "none.table", "--parquet", "gone/t.parquet"),
            "--parquet = 'gone/t.parquet': there is no folder 'gone'; make it first\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_misuse_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"bitwright: {message}") and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_another_thread_count_is_refused(table: Path) -> None:
    done = invoke("kernels", *QUICK, "--threads", "2", "--out", str(table))
    assert done.exit_code == 2
    assert "which differs: threads 1, here 2. Measure another one for this" in done.stderr


def _content(path: Path) -> list[str] | bytes:
    """All that a table holds, whichever way SQLite keeps its log; the bytes of what is no database."""
    try:
        with closing(sqlite3.connect(path)) as database:
            return list(database.iterdump())
    except sqlite3.DatabaseError:
        return path.read_bytes()


QUICK_INTO = ("kernels", *QUICK, "--minutes", "9", "--out")


@pytest.mark.parametrize("command", [QUICK_INTO, ("show",), ("merge", "--out", "new.table")], ids=lambda each: each[0])
@pytest.mark.parametrize("how", ["cut short", "written over"])
def test_a_damaged_table_is_refused_in_one_line_and_left_as_it_is(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged = tmp_path / "t.table"
    shutil.copyfile(table, damaged)
    if how == "cut short":
        damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
        message = "bitwright: t.table: is damaged or no latency table (database disk image is malformed): "
    else:
        with closing(sqlite3.connect(damaged)) as database, database:
            database.execute("UPDATE sessions SET value = replace(value, 'reference_us', 'reference_ms')")
        message = "bitwright: t.table: sessions "
    before = _content(damaged)
    done = invoke(*command, "t.table")
    assert done.exit_code == 2
    assert done.stderr.startswith(message) and "take " in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert _content(damaged) == before and not Path("new.table").exists()


def test_a_table_of_another_version_of_the_runtime_is_refused(tmp_path: Path) -> None:
    here, path = TableKey.here("onnxruntime", 1), tmp_path / "t.table"
    with KernelTable.writing(path, replace(here, version="1.0"), REFERENCE.to_json()):
        pass
    before = _content(path)
    done = invoke(*QUICK_INTO, str(path))
    assert (done.exit_code, done.stderr) == (
        2,
        f"bitwright: {path}: is a table of {replace(here, version='1.0')}, which differs: version 1.0, here "
        f"{here.version}. Measure another one for this: bitwright measure kernels --out ANOTHER\n",
    )
    assert _content(path) == before


def test_a_second_command_on_one_table_is_refused_and_the_first_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.table"
    with KernelTable.writing(path, TableKey.here("onnxruntime", 1), REFERENCE.to_json()) as first:
        done = invoke(*QUICK_INTO, str(path))
        first.add(facts={"still": "writing"})
    assert (done.exit_code, done.stderr) == (
        2,
        f"bitwright: {path}: process {os.getpid()} is measuring into it; wait for it, or measure into another file "
        "and merge\n",
    )
    assert KernelTable.load(path).facts == {"still": "writing"}
