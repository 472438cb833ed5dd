"""Jobs on a device: each is done once, whatever happens to whom."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from bitwright.hw_constraints.transport import Device, Job, Journal, measure_files_on, run_jobs
from bitwright.hw_constraints.transport.content import arrays_content, file_content
from bitwright.hw_constraints.transport.driver import Retries
from bitwright.hw_constraints.transport.failures import Busy, LacksSoftware, Rejected, Unusable
from bitwright.quant.errors import InputError

QUICK = {"max_seconds": 0.3, "min_rounds": 5, "target_half_width": 0.5}
SLOW = {"max_seconds": 2.0, "target_half_width": 1e-9}
SOON = Retries(first_s=0.01, longest_s=0.02, tries=3, wait_s=5)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "jobs.sqlite")


def job_of(model, **options) -> Job:
    return Job(artefacts={"a": file_content(model)}, runtime="onnxruntime", nonce="n", **{**QUICK, **options})


def test_a_job_is_named_by_what_it_is(model, larger_model):
    one = job_of(model)
    assert one.id == job_of(model).id == replace(one, lock_wait_s=1, cool_s=1).id
    zeros = arrays_content("x", {"x": np.zeros(3)})
    others = [
        replace(one, nonce="m"),
        replace(one, threads=2),
        replace(one, runtime="openvino"),
        replace(one, max_seconds=1),
        replace(one, inputs={"a": zeros}),
        replace(one, artefacts={"a": file_content(larger_model)}),
        replace(one, artefacts={"b": file_content(model)}),
        replace(one, artefacts={"a": file_content(model), "b": file_content(larger_model)}),
        replace(one, artefacts={"b": file_content(larger_model), "a": file_content(model)}),
    ]
    assert len({one.id, *(each.id for each in others)}) == 1 + len(others)


def test_misuse(model):
    with pytest.raises(InputError, match="nothing to measure: give at least one artefact"):
        Job(artefacts={}, runtime="onnxruntime")
    with pytest.raises(InputError, match=r"inputs for \['b'\]; the candidates are \['a'\]"):
        job_of(model, inputs={"b": file_content(model)})


def test_a_job_is_done_once(device, model, journal, executions, tmp_path):
    job = job_of(model)
    (first,) = run_jobs(device, [job], journal)
    (second,) = run_jobs(device, [job], journal)
    (third,) = run_jobs(device, [job], Journal(tmp_path / "another.sqlite"))  # this machine forgot, the device did not
    assert first == second == third
    assert executions("start") == executions("done") == [job.id]


def test_two_drivers_with_one_job_run_it_once(local_address, model, tmp_path, executions):
    job, results = job_of(model, **SLOW), []

    def drive(number: int) -> None:
        with Device(local_address) as device:
            results.extend(run_jobs(device, [job], Journal(tmp_path / f"{number}.sqlite")))

    drivers = [threading.Thread(target=drive, args=(number,)) for number in range(3)]
    for each in drivers:
        each.start()
    for each in drivers:
        each.join()
    assert len(results) == 3
    assert results[0] == results[1] == results[2]
    assert executions("start") == executions("done") == [job.id]


def worker_of(job: Job) -> int:
    """The process on the device that works on a job; its lock file says so in /proc/locks by its inode."""
    stop_at = time.monotonic() + 20
    while time.monotonic() < stop_at:
        found = subprocess.run(["pgrep", "-f", "pyz work$"], capture_output=True, text=True, check=False).stdout.split()
        for pid in map(int, found):
            try:
                links = [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                continue
            if any(each.endswith(f"{job.id}.lock") for each in links):
                return pid
        time.sleep(0.02)
    raise AssertionError("no worker")


def test_a_killed_runner_is_started_again(device, model, journal, executions):
    job = job_of(model, **SLOW)

    def kill() -> None:
        time.sleep(0.5)
        os.kill(worker_of(job), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (result,) = run_jobs(device, [job], journal)
    killer.join()
    assert executions("start") == [job.id, job.id]
    assert executions("done") == [job.id]
    assert result.measurement.rounds > 0


def test_a_job_that_always_ends_its_process_is_given_up(device, model, journal, executions, tmp_path, monkeypatch):
    # A runtime that dies with the process, as a native library does.
    package = tmp_path / "packages" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, sys\nprint('std::bad_alloc', file=sys.stderr, flush=True)\nos.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    job = job_of(model)
    message = "it was started 3 times and ended each time without a result: std::bad_alloc"
    with pytest.raises(Unusable, match=message):
        run_jobs(device, [job], journal, retries=SOON)
    assert executions("start") == [job.id] * 3


def test_who_holds_the_device_is_said(device, model, journal, tmp_path):
    lock = tmp_path / "device.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert device.hello()["busy"] == "user ann, pid 7, job j1, since noon"
    said: list[str] = []
    job = job_of(model, lock_wait_s=1.5)
    message = (
        r"local: measured for somebody else for 1\.5 s: user ann, pid 7, job j1, since noon; try again later, or wait"
    )
    with pytest.raises(Busy, match=message):
        run_jobs(device, [job], journal, retries=replace(SOON, wait_s=0.5), say=said.append)
    holder.kill()
    holder.wait()
    assert said[0] == "local: waits for user ann, pid 7, job j1, since noon"
    assert run_jobs(device, [job], journal)  # that it was busy is not kept


HOLD = """
import fcntl, json, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
json.dump({"user": "ann", "pid": 7, "job": "j1", "since": "noon"}, file)
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_two_jobs_on_one_device_take_turns(tmp_path, model, larger_model):
    """Two accounts: folders of their own, one lock."""
    spans = []

    def drive(name: str, path) -> None:
        address = f"local:{tmp_path / name}?python={sys.executable}&lock={tmp_path / 'device.lock'}"
        with Device(address) as device:
            job = job_of(path, max_seconds=1.0, target_half_width=1e-9)
            (result,) = run_jobs(device, [job], Journal(tmp_path / f"{name}.sqlite"))
        record = json.loads((tmp_path / name / "jobs" / f"{result.job}.json").read_text())
        spans.append(tuple(record["span"]))

    drivers = [threading.Thread(target=drive, args=each) for each in (("x", model), ("y", larger_model))]
    for each in drivers:
        each.start()
    for each in drivers:
        each.join()
    (_, first_end), (second_start, _) = sorted(spans)
    assert second_start >= first_end


def test_a_missing_runtime_is_named_with_how_to_install_it(device, model, journal, executions):
    job = replace(job_of(model), runtime="tensorrt")
    message = r"^local: trtexec is not in PATH; install it there: it comes with TensorRT \(apt install libnvinfer-bin\)"
    for _ in range(5):  # the refusal is not kept, however often: it may be installed meanwhile
        with pytest.raises(LacksSoftware, match=message):
            run_jobs(device, [job], journal, retries=SOON)
    assert executions("start") == [job.id] * 5


def test_a_package_that_does_not_import(device, model, journal, tmp_path, monkeypatch):
    (tmp_path / "packages" / "openvino").mkdir(parents=True)
    (tmp_path / "packages" / "openvino" / "__init__.py").write_text("raise ImportError('libtbb.so.12: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    with pytest.raises(LacksSoftware, match=r"local: openvino does not import: libtbb\.so\.12: no such file"):
        run_jobs(device, [replace(job_of(model), runtime="openvino")], journal)


def test_an_unknown_runtime_lists_those_there_are(device, model, journal):
    message = "unknown runtime 'ort'; there are: benchmark_app, litert, onnxruntime, onnxruntime_perf_test, openvino"
    with pytest.raises(Unusable, match=message):
        run_jobs(device, [replace(job_of(model), runtime="ort")], journal)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_a_rejected_model_is_said_in_the_runtimes_words_once(device, tmp_path, journal, executions, runtime):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    job = replace(job_of(broken), runtime=runtime)
    for _ in range(2):
        with pytest.raises(Rejected, match=r"^local: the runtime rejects a: .{10,}"):
            run_jobs(device, [job], journal)
    assert executions("start") == [job.id]  # it would be rejected again, so that is kept


def test_more_threads_than_processors(device, model, journal):
    with pytest.raises(Unusable, match=r"local: threads = 999; this process may use \d+ processors"):
        run_jobs(device, [job_of(model, threads=999)], journal)


def test_given_inputs_reach_the_device(device, model, journal):
    wrong = arrays_content("inputs of a", {"x": np.zeros((1, 64, 3), np.float32)})
    with pytest.raises(Rejected, match=r"a: .*Got invalid dimensions for input: x"):
        run_jobs(device, [job_of(model, inputs={"a": wrong})], journal)
    right = arrays_content("inputs of a", {"x": np.zeros((1, 64, 32), np.float32)})
    (result,) = run_jobs(device, [job_of(model, inputs={"a": right})], journal)
    assert result.measurement.latency("a").median_us > 0


def test_a_list_that_was_finished_is_measured_anew(device, model, tmp_path):
    options = {"runtime": "onnxruntime", "journal": tmp_path / "j", **QUICK}
    assert (
        measure_files_on(device, {"a": model}, **options).job != measure_files_on(device, {"a": model}, **options).job
    )


def test_a_journal_that_is_none(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(
        InputError, match=r"jobs\.sqlite: not a usable journal of jobs: file is not a database; move it"
    ):
        Journal(path)


def test_the_journal_says_what_is_known(journal, tmp_path):
    assert journal.note("x") is None
    journal.asked("x", "orin")
    journal.failed("x", "it was cut", given_up=False)
    journal.failed("x", "it was cut again", given_up=True)
    note = journal.note("x")
    assert (note.state, note.failures, note.note) == ("failed", 2, "it was cut again")
    journal.asked("x", "orin")
    journal.measured("x", {"state": "measured"})
    journal.asked("x", "orin")  # another driver: what is there stays
    assert journal.result("x") == {"state": "measured"}
    assert journal.nonce("list") == journal.nonce("list")
    before = journal.nonce("list")
    journal.finish("list")
    assert journal.nonce("list") != before
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
