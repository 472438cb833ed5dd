"""From the measuring process to the table: crashes and hangs cost one model, precision decides how long."""

from __future__ import annotations

import faulthandler
import math
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_tables import KEY, REFERENCE_RECORD, kernel
from test_placement import REFERENCE as REFERENCE_BYTES
from test_placement import Timer, Wound

from bitwright.hw_constraints.table import KernelTable, TableKey, worker
from bitwright.hw_constraints.table.bench import Bench
from bitwright.hw_constraints.table.measuring import Network, Precision, Recording, measure_batch, measure_into
from bitwright.hw_constraints.table.placement import WALL, Effort
from bitwright.hw_constraints.table.reference import REFERENCE, reference_model
from bitwright.quant.errors import InputError


class Mortal:
    """A session that ends its process when it has run for a while."""

    input_infos = ()

    def __init__(self) -> None:
        self._runs = 0

    def run(self, inputs: Any) -> dict[str, Any]:
        self._runs += 1
        if self._runs > 4:
            os._exit(7)
        return {}


class Dangerous(Timer):
    """A runtime that some models bring down."""

    def load(self, artifact: Any, *, threads: int = 1) -> Any:
        if artifact == b"crash":
            faulthandler.disable()  # pytest's would print where
            os.kill(os.getpid(), signal.SIGSEGV)
        if artifact == b"hang":
            time.sleep(60)
        if artifact == b"crash later":
            return Mortal()
        if artifact == b"print":
            print("what a runtime says is no answer", flush=True)
            return super().load(b"0.001", threads=threads)
        return super().load(artifact, threads=threads)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> worker.Worker:
    """The measuring process's inside, with a runtime that only the clock of the machine drives."""
    clock = Wound()
    monkeypatch.setattr(worker, "get_backend", lambda name: Dangerous(clock))
    monkeypatch.setattr(worker, "reference_model", lambda: REFERENCE_BYTES)
    monkeypatch.setattr(worker, "_LOAD_SECONDS", 0.4)
    monkeypatch.setattr(worker, "Loaded", partial(worker.Loaded, clock=clock))
    return worker.Worker("timer", 1)


def asked(process: worker.Worker, folder: Path, *models: bytes, placements: int = 2) -> list[dict[str, Any]]:
    files = [folder / f"{number}" for number in range(len(models))]
    for file, model in zip(files, models, strict=True):
        file.write_bytes(model)
    return process.answer(
        {
            "jobs": [{"file": str(file)} for file in files],
            "placements": placements,
            "effort": {"rounds": 3, "seconds": 1.0, "sample_seconds": 1e-4},
            "seed": 0,
        }
    )


def test_each_placement_is_a_process_of_its_own(process: worker.Worker, tmp_path: Path) -> None:
    found = asked(process, tmp_path, b"0.002", b"print", placements=3)
    assert [[each["ratio"] for each in job["placements"]] for job in found] == [
        [pytest.approx(2.0)] * 3,
        [pytest.approx(1.0)] * 3,
    ]


def test_a_model_that_kills_or_stops_its_process_is_rejected_and_the_others_go_on(
    process: worker.Worker, tmp_path: Path
) -> None:
    crashed, first, hung, unknown, second = asked(process, tmp_path, b"crash", b"0.002", b"hang", b"what", b"0.003")
    assert crashed == {"rejected": f"the runtime's process ended with {-signal.SIGSEGV}"}
    assert hung == {"rejected": "the runtime's process did not come to an end"}
    assert unknown == {"rejected": "no kernel for what"}
    assert [each["ratio"] for each in first["placements"]] == [pytest.approx(2.0)] * 2
    assert [each["ratio"] for each in second["placements"]] == [pytest.approx(3.0)] * 2


def test_a_model_that_kills_its_process_only_when_it_runs_is_found_among_the_others(
    process: worker.Worker, tmp_path: Path
) -> None:
    first, mortal, second = asked(process, tmp_path, b"0.002", b"crash later", b"0.003")
    assert mortal == {"rejected": "the runtime's process ended with 7"}
    assert [[each["ratio"] for each in job["placements"]] for job in (first, second)] == [
        [pytest.approx(2.0)] * 2,
        [pytest.approx(3.0)] * 2,
    ]


def test_a_runtime_that_does_not_run_the_reference_is_refused(
    process: worker.Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reference, message in (
        (b"what", "no kernel for what"),
        (b"crash", f"its process ended with {-signal.SIGSEGV}"),
    ):
        monkeypatch.setattr(process, "_reference", reference)
        with pytest.raises(InputError, match=f"timer does not run the reference kernel: {message}"):
            asked(process, tmp_path, b"0.002")


class Pretended:
    """A bench that draws ratios around a truth; counts the placements."""

    def __init__(self, spread: float, *, seed: int = 0) -> None:
        self._spread, self._random = spread, random.Random(seed)
        self.placements: list[int] = []

    def measure(self, jobs: Sequence[Any], *, placements: int, effort: Effort, seed: int) -> list[dict[str, Any]]:
        self.placements.append(placements)
        return [self._job(job, placements) for job in jobs]

    def _job(self, job: Any, placements: int) -> dict[str, Any]:
        channels = job["kernel"]["inputs"][0][1]
        if channels == 13:
            return {"rejected": "not with 13"}
        rest = {"reference_us": 200.0, "rounds": 8, "disturbed": 1, "basis": WALL}
        return {
            "placements": [
                {"ratio": channels * self._random.lognormvariate(0, self._spread), **rest} for _ in range(placements)
            ]
        }


def test_kernels_get_more_placements_until_their_interval_is_narrow() -> None:
    easy, hard = Pretended(0.002), Pretended(0.05)
    precision = Precision(half_width=0.02, most=12)
    for bench, expected in ((easy, [3, 3]), (hard, [3, 3, 3, 3])):
        rows, references = measure_batch(
            bench, [kernel(3), kernel(4)], precision=precision, effort=Effort(), seed=0  # type: ignore[arg-type]
        )  # fmt: skip
        assert bench.placements == expected
        assert [row.placements for row in rows] == [sum(expected)] * 2
        assert [row.ratio for row in rows] == [pytest.approx(3, rel=0.05), pytest.approx(4, rel=0.05)]
        assert all(row.low < row.ratio < row.high and row.rounds == 8 * row.placements for row in rows)
        assert set(references) == {200.0}


def test_intervals_cover_the_truth() -> None:
    bench, covered = Pretended(0.03, seed=5), 0
    for _ in range(300):
        ((row,), _) = measure_batch(
            bench, [kernel(5)], precision=Precision(most=6), effort=Effort(), seed=0  # type: ignore[arg-type]
        )  # fmt: skip
        covered += row.low <= 5 <= row.high
    assert covered >= 0.93 * 300  # an exact interval over six covers 96.9 %: 2 x 1/64 lie outside


def test_rows_go_into_the_table_batch_by_batch_and_rejections_with_their_message(tmp_path: Path) -> None:
    told: list[int] = []

    def batches() -> Iterator[Sequence[Any]]:
        yield [kernel(3), kernel(13)]
        assert len(KernelTable.load(tmp_path / "table")) == 2  # a reader sees the first batch before the second one
        yield [kernel(4)]

    with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
        measure_into(
            table,
            Pretended(0.001),  # type: ignore[arg-type]
            batches(),
            seconds=60,
            progress=lambda rows, seconds: told.append(len(rows)),
        )
    table = KernelTable.load(tmp_path / "table")
    assert told == [2, 1]
    rejected = table.get(kernel(13))
    assert rejected is not None and rejected.rejected == "not with 13"
    (session,) = table.sessions
    assert (session.kernels, session.reference_us) == (3, 200.0)
    assert table.latency_us(kernel(4)) == pytest.approx(800.0, rel=0.01)


def test_a_kernel_that_takes_less_than_nothing_is_refused_and_one_that_drowns_is_not() -> None:
    """Two models of which the one with the kernel is the faster differ in more than the kernel."""

    class Shifted(Pretended):
        def _job(self, job: Any, placements: int) -> dict[str, Any]:
            found = super()._job(job, placements)
            for each, sign in zip(found["placements"], (1, -1, 1) * placements, strict=False):
                each["ratio"] *= -0.1 if job["kernel"]["inputs"][0][1] == 3 else 1e-4 * sign
            return found

    rows, _ = measure_batch(
        Shifted(0.01), [kernel(3), kernel(4)], precision=Precision(most=6), effort=Effort(), seed=0  # type: ignore[arg-type]
    )  # fmt: skip
    assert rows[0].rejected == "its minimal model takes less time with the kernel than without"
    assert math.isnan(rows[0].ratio)
    assert not rows[1].rejected and rows[1].low < 0 < rows[1].high


def test_no_batch_begins_when_the_time_is_up(tmp_path: Path) -> None:
    with KernelTable.writing(tmp_path / "table", KEY, REFERENCE_RECORD) as table:
        measure_into(table, Pretended(0.001), iter([[kernel(3)]]), seconds=0)  # type: ignore[arg-type]
        assert len(table) == 0
        Recording(table).add([], [])  # nothing seen: no session either
        assert table.sessions == ()


def test_the_reference_measured_like_any_model_takes_as_long_as_itself(tmp_path: Path) -> None:
    file = tmp_path / "reference.onnx"
    file.write_bytes(reference_model())
    network = Network(name="the reference", file=file, kernels=(REFERENCE,))
    broken = Network(name="broken", file=tmp_path / "broken.onnx", kernels=())
    broken.file.write_bytes(b"broken")
    with Bench("onnxruntime", 1) as bench:
        (row, refused), references = measure_batch(
            bench, [network, broken], precision=Precision(most=6), effort=Effort(), seed=0
        )
    assert row.ratio == pytest.approx(1.0, rel=0.1)
    assert row.placements == 6 and len(references) == 6
    assert "onnxruntime cannot load it" in refused.rejected


def test_a_runtime_that_is_not_here_and_a_process_that_dies_are_one_message() -> None:
    with pytest.raises(InputError, match="unknown backend 'nonsense'"):
        Bench("nonsense", 1)
    with Bench("onnxruntime", 1, processes=1) as bench:
        os.killpg(bench._processes[0]._process.pid, signal.SIGKILL)
        with pytest.raises(InputError, match=f"the measuring process ended with {-signal.SIGKILL}: it wrote nothing"):
            bench.measure([], placements=1, effort=Effort(), seed=0)


def test_the_key_of_this_machine() -> None:
    key = TableKey.here("onnxruntime", 1)
    assert key == TableKey.from_json(key.to_json())
    assert key.differences(key) == ()
    (difference,) = key.differences(TableKey.here("onnxruntime", 2))
    assert difference == "threads 1, here 2"
    with pytest.raises(InputError, match="threads = 0; at least 1 is needed"):
        TableKey.here("onnxruntime", 0)
