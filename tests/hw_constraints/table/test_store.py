"""The table's file: what is written comes back, what was damaged or belongs elsewhere is refused."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tables import DATE, KEY, REFERENCE_RECORD, kernel, network_row, row, session, with_threads, written

from bitwright.hw_constraints.table import KernelRow, KernelTable
from bitwright.hw_constraints.table.database import KINDS, Database
from bitwright.quant.errors import InputError

ROWS = [row(channels, ratio=channels / 7) for channels in range(1, 60)]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    rejected = KernelRow(kernel=kernel(99), date=DATE, rejected="no such kernel")
    table = written(tmp_path / "table", [*ROWS, rejected, network_row()], facts={"overheads": {"run": 1.5}})
    assert table.key == KEY
    assert {each.kernel for each in table.measured} == {each.kernel for each in ROWS}
    assert table.get(ROWS[3].kernel) == ROWS[3] and ROWS[3].key in table
    assert table.get(kernel(100)) is None
    found = table.get(kernel(99))
    assert found is not None and found.rejected == "no such kernel" and math.isnan(found.ratio)
    assert table.networks == (network_row(),)
    assert table.facts == {"overheads": {"run": 1.5}}
    assert table.sessions == (session(),)
    assert table.latency_us(ROWS[6].kernel) == pytest.approx(240.0)
    assert table.latency_us(kernel(99)) is None


def test_the_reference_latency_is_the_median_of_the_sessions(tmp_path: Path) -> None:
    sessions = [session(str(number), reference) for number, reference in enumerate((100.0, 400.0, 110.0))]
    assert written(tmp_path / "table", ROWS, sessions=sessions).reference_us == 110.0
    empty = written(tmp_path / "empty", [], sessions=[])
    with pytest.raises(InputError, match="empty: nothing has been measured into it yet"):
        _ = empty.reference_us


def test_a_kernel_that_is_measured_again_replaces_its_row(tmp_path: Path) -> None:
    before = written(tmp_path / "table", [row(3, ratio=1.0), row(4)])
    after = written(tmp_path / "table", [row(3, ratio=2.0)])
    assert (len(before), len(after)) == (2, 2)
    assert after.get(kernel(3)) == row(3, ratio=2.0)


rows_of_any_kind = st.lists(
    st.builds(
        row,
        channels=st.integers(1, 10**6),
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        half_width=st.floats(0, 1e3),
    ),
    unique_by=lambda each: each.key,
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(rows=rows_of_any_kind, data=st.data())
def test_the_hash_depends_on_the_content_and_not_on_the_order(rows: list[KernelRow], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    with tempfile.TemporaryDirectory() as folder:
        whole = written(Path(folder) / "a", rows)
        written(Path(folder) / "b", shuffled[:cut])
        parts = written(Path(folder) / "b", shuffled[cut:])
        other = written(Path(folder) / "c", rows[1:])
    assert whole.rows == parts.rows
    assert whole.content_hash == parts.content_hash != other.content_hash


def test_the_hash_covers_key_sessions_and_facts(tmp_path: Path) -> None:
    tables = [
        written(tmp_path / "a", ROWS),
        written(tmp_path / "b", ROWS, key=with_threads(2)),
        written(tmp_path / "c", ROWS, sessions=[session(reference_us=239.0)]),
        written(tmp_path / "d", ROWS, facts={"overheads": {}}),
        written(tmp_path / "e", [*ROWS, network_row()]),
    ]
    assert len({each.content_hash for each in tables}) == len(tables)


def edited(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


ONE = "(SELECT name FROM kernels LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"UPDATE kernels SET value = replace(value, '48', '49') WHERE name = {ONE}", "is not what was written"),
        (f"DELETE FROM kernels WHERE name = {ONE}", "rows were lost or added"),
        (f"UPDATE kernels SET name = 'other' WHERE name = {ONE}", "rows were lost or added"),
        ("INSERT INTO kernels SELECT 'other', value, digest FROM kernels LIMIT 1", "rows were lost or added"),
        ("UPDATE sessions SET value = replace(value, '240', '241')", "is not what was written"),
        ("UPDATE head SET value = replace(value, '1.31.1', '1.31.2') WHERE name = 'key'", "rows were lost or added"),
    ],
)
def test_a_tampered_table_is_refused(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "table"
    written(path, ROWS)
    edited(path, statement)
    with pytest.raises(InputError, match=f"table: .*{message}.*: take (the table|it) from a copy"):
        KernelTable.load(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_table_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "table"
    written(path, ROWS)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"table: (is damaged|is not a latency table|.*is not what was written)"):
        KernelTable.load(path)


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_does_not_matter(
    place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = folder / "table"
    whole = written(path, ROWS[:5])
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        after = KernelTable.load(path)
    except InputError:
        return
    finally:
        shutil.rmtree(folder)
    assert after.rows == whole.rows and after.content_hash == whole.content_hash


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"table: is (not a|damaged or no) latency table"):
        KernelTable.load(path)


def test_another_schema_and_another_database_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"
    written(path, ROWS)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    with pytest.raises(InputError, match="table: has schema 2; this version reads 1: measure the table anew"):
        KernelTable.load(path)
    connection.execute("PRAGMA application_id = 7")
    with pytest.raises(InputError, match="table: is not a latency table"):
        KernelTable.load(path)
    with pytest.raises(InputError, match="none: no such file"):
        KernelTable.load(tmp_path / "none")
    with pytest.raises(InputError, match=r": is a folder; name a table$"):
        KernelTable.load(tmp_path)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM head WHERE name = 'key'", "no 'key'"),
        ("UPDATE head SET value = '{}' WHERE name = 'key'", "not the key of a latency table: 'device'"),
        (f"UPDATE kernels SET value = '{{}}' WHERE name = {ONE}", "not a row of a latency table: .*'kernel'"),
        (f"UPDATE kernels SET value = 'five' WHERE name = {ONE}", "Expecting value: line 1 column 1 .char 0."),
        ("UPDATE sessions SET value = '[]'", ".* argument after .* must be a mapping, not list"),
    ],
)
def test_a_table_that_somebody_else_wrote_is_refused_by_its_name(tmp_path: Path, statement: str, what: str) -> None:
    path = tmp_path / "table"
    written(path, ROWS)
    edited(path, statement)
    connection = sqlite3.connect(path)
    head = dict(connection.execute("SELECT name, value FROM head WHERE name <> 'content'"))
    forged = Database(path, connection, writes=True)
    forged.head = head
    for kind in KINDS:
        forged.entries[kind] = dict(connection.execute(f"SELECT name, value FROM {kind}"))
    forged.write(forged.entries)
    forged.close()
    said = rf"table: is not as Bitwright writes tables \({what}\): take it from a copy or measure it anew$"
    with pytest.raises(InputError, match=said):
        KernelTable.load(path)


def test_a_table_for_something_else_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "table"
    before = written(path, ROWS)
    said = "table: is a table of onnxruntime 1.31.1, 1 thread, Some CPU, which differs: threads 1, here 2"
    with pytest.raises(InputError, match=said):
        written(path, [row(999)], key=with_threads(2))
    with pytest.raises(InputError, match=said):
        KernelTable.load(path, key=with_threads(2))
    with pytest.raises(InputError, match="has another reference kernel"), KernelTable.writing(path, KEY, {"other": 1}):
        pass
    assert KernelTable.load(path, key=KEY).content_hash == before.content_hash


def test_a_table_in_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file/table", "file/a/b/table"):
        said = rf"{place}: its folder cannot be made \((File exists|Not a directory)\); name another place$"
        with pytest.raises(InputError, match=said), KernelTable.writing(tmp_path / place, KEY, REFERENCE_RECORD):
            pass


def test_a_second_writer_is_refused_and_the_first_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with KernelTable.writing(path, KEY, REFERENCE_RECORD) as table:
        table.add(ROWS[:3])
        with (
            pytest.raises(
                InputError, match=f"table: process {os.getpid()} is measuring into it; wait for it, or measure"
            ),
            KernelTable.writing(path, KEY, REFERENCE_RECORD),
        ):
            pass
        assert len(KernelTable.load(path)) == 3  # readers may look on
        table.add(ROWS[3:5])
    assert len(written(path, ROWS[5:7])) == 7


WRITES_FOR_EVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_up_tables import KEY, REFERENCE_RECORD, row, session
from bitwright.hw_constraints.table import KernelTable
with KernelTable.writing(Path(sys.argv[2]), KEY, REFERENCE_RECORD) as table:
    for start in range(0, 10**6, 7):
        table.add([row(start + number + 1) for number in range(7)], sessions=[session(str(start))])
        print(start, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "table"
    for _ in range(3):
        command = [sys.executable, "-c", WRITES_FOR_EVER, str(Path(__file__).parent), str(path)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        for _ in range(5):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        last = int(rest[-1]) if rest else last
        table = KernelTable.load(path)
        # What it had announced is there; of what it had not, all of a batch or nothing.
        assert len(table) % 7 == 0 and last + 7 <= len(table) <= last + 14
        path.unlink()
    assert len(written(path, ROWS)) == len(ROWS)


READS = """
import sys, time
from pathlib import Path
from bitwright.hw_constraints.table import KernelTable
end, reads = time.monotonic() + 2.0, 0
while time.monotonic() < end:
    assert len(KernelTable.load(Path(sys.argv[1]))) % 2 == 0
    reads += 1
print(reads)
"""


def test_the_log_of_a_deleted_table_does_not_get_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with KernelTable.writing(path, KEY, REFERENCE_RECORD) as table:
        table.add(ROWS)
        logs = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("-wal", "-shm")}
    path.unlink()
    for suffix, content in logs.items():  # as a kill would have left them
        Path(f"{path}{suffix}").write_bytes(content)
    assert len(written(path, ROWS[:2])) == 2


def test_readers_see_whole_batches_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "table"
    written(path, ROWS[:2])
    reader = subprocess.Popen([sys.executable, "-c", READS, str(path)], stdout=subprocess.PIPE, text=True)
    count = 0
    while reader.poll() is None:
        count += 2
        written(path, [row(1000 + count), row(1001 + count)])
    assert reader.returncode == 0 and reader.stdout and int(reader.stdout.read()) > 10
    assert len(KernelTable.load(path)) == count + 2 > 20


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(self: Database) -> str:
        raise sqlite3.OperationalError("database or disk is full")

    path = tmp_path / "table"
    with KernelTable.writing(path, KEY, REFERENCE_RECORD) as table:
        table.add(ROWS[:3])
        before = table.content_hash
        with monkeypatch.context() as patched:
            patched.setattr(Database, "content_hash", no_room)
            with pytest.raises(InputError, match="table: database or disk is full"):
                table.add(ROWS[3:])
        assert (len(table), table.content_hash) == (3, before)
    assert KernelTable.load(path).content_hash == before
