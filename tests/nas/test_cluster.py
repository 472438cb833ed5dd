import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bitwright.experiments.benchmarks.loopback_postgresql import free_port
from bitwright.nas import cluster
from bitwright.nas.cluster import Cluster, local_cluster, remote_cluster
from bitwright.nas.from_scratch import trained_from_scratch
from bitwright.nas.result import Outcome
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome
from bitwright.nas.worker_tasks import Software
from bitwright.quant.errors import InputError

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _workers_find_nas_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", HERE)


def run(workers: Cluster, synthetic: ModuleType, folder: Path, *, trials: int = 12, **changes: Any) -> SearchOutcome:
    return search(
        synthetic.Space(), synthetic.Workload(), synthetic.settings(trials, **changes), folder, workers=workers
    )


def evaluated(folder: Path) -> Counter[str]:
    return Counter((folder / "evaluations.log").read_text().split())


def worker_pids(workers: Cluster) -> list[int]:
    return list(workers.client.run(os.getpid).values())


def test_two_workers_find_what_one_process_finds(synthetic: ModuleType, tmp_path: Path) -> None:
    with local_cluster(2, evaluate=synthetic.evaluate) as workers:
        outcome = run(workers, synthetic, tmp_path / "cluster", batch=4)
        again = trained_from_scratch(
            outcome.front, synthetic.Space(), [synthetic.Workload()], tmp_path / "cluster", workers
        )
    alone = synthetic.run(tmp_path / "alone", trials=12, batch=4)
    assert outcome.results == alone.results
    assert evaluated(tmp_path / "cluster") == Counter(each.key for each in outcome.results)
    assert again == {each.key: each for each in outcome.front}
    (scratch,) = (tmp_path / "cluster").glob("from-scratch-*")  # evaluated there, and not what the search had
    assert evaluated(scratch) == Counter(each.key for each in outcome.front)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(synthetic: ModuleType, tmp_path: Path) -> None:
    with local_cluster(2, evaluate=functools.partial(synthetic.evaluate, seconds=0.2)) as workers:
        killed: list[int] = []

        def kill() -> None:
            for pid in worker_pids(workers):
                time.sleep(0.5)
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

        killer = threading.Timer(0.6, kill)
        killer.start()
        outcome = run(workers, synthetic, tmp_path / "cluster", batch=4)
        killer.join()
    assert len(killed) == 2
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=12, batch=4).results
    assert all(count <= 2 for count in evaluated(tmp_path / "cluster").values())


@pytest.mark.slow
def test_a_killed_driver_of_a_cluster_repeats_the_undisturbed_front(synthetic: ModuleType, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    for evaluations in (2, 7):
        driver = subprocess.Popen([sys.executable, synthetic.__file__, str(killed), "12", "0.15", "tpe", "2", "4"])
        deadline = time.monotonic() + 60
        while not (killed / synthetic.LOG).exists() or evaluated(killed).total() < evaluations:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        driver.kill()
        driver.wait()
    outcome = synthetic.run(killed, trials=12, batch=4)
    assert outcome.recovered
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=12, batch=4).results
    assert [each.number for each in outcome.trials] == list(range(len(outcome.trials)))


@pytest.mark.slow
def test_a_candidate_that_kills_its_workers_is_given_up_with_its_reason(synthetic: ModuleType, tmp_path: Path) -> None:
    with local_cluster(1, evaluate=synthetic.deadly) as workers:
        outcome = run(workers, synthetic, tmp_path, trials=6, sampler="random")
    dead = [each for each in outcome.results if each.values["format"] == "float32"]
    assert dead
    for each in dead:
        assert each.outcome is Outcome.FAILED
        assert each.reason.startswith("3 workers died while they evaluated it, the last one at tcp://127.0.0.1:")
        assert evaluated(tmp_path)[each.key] == 3
    assert all(each.outcome is not Outcome.FAILED for each in outcome.results if each not in dead)


@pytest.mark.slow
def test_what_all_candidates_lack_ends_the_search_in_one_message(synthetic: ModuleType, tmp_path: Path) -> None:
    with (
        local_cluster(1, evaluate=synthetic.without_data) as workers,
        pytest.raises(InputError, match="no such folder"),
    ):
        run(workers, synthetic, tmp_path)


@contextmanager
def program(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def scheduler(port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with program("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", *arguments) as process:
        yield process


@contextmanager
def worker(address: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with program("worker", address, "--nthreads", "1", "--no-dashboard", *arguments) as process:
        yield process


@pytest.mark.slow
def test_a_lost_scheduler_is_waited_for(synthetic: ModuleType, tmp_path: Path) -> None:
    port = free_port()
    said: list[str] = []
    address = f"tcp://127.0.0.1:{port}"
    with worker(address), scheduler(port) as first:

        def restart() -> None:
            with scheduler(port), worker(address):  # a worker ends with its scheduler
                over.wait()

        over, second = threading.Event(), threading.Thread(target=restart)

        def kill() -> None:
            first.kill()
            first.wait()
            time.sleep(1)
            second.start()

        with remote_cluster(
            address, evaluate=functools.partial(synthetic.evaluate, seconds=0.3), on_wait=said.append
        ) as workers:
            threading.Timer(4, kill).start()
            try:
                outcome = run(workers, synthetic, tmp_path / "cluster", trials=20)
            finally:
                over.set()
        second.join()
    assert said[-2:] == [
        f"the scheduler {address} is lost; waiting for it (Ctrl-C ends the search, nothing is lost)",
        "the scheduler is back",
    ]
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=20).results


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setattr(cluster, "_CONNECT", "1s")
    message = rf"scheduler '{address}' cannot be reached .*start one with dask scheduler"
    with pytest.raises(InputError, match=message), remote_cluster(address):
        pass


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "software", lambda: Software(version="9.9", code="abc"))
    with local_cluster(1, evaluate=synthetic.evaluate) as workers:
        message = r"worker tcp://\S+ runs bitwright 0\.\d+\.\d+ \(\w{12}\), the driver bitwright 9\.9 \(abc\); install"
        with pytest.raises(InputError, match=message):
            run(workers, synthetic, tmp_path)
    assert not (tmp_path / "evaluations.log").exists()


@pytest.mark.slow
def test_a_worker_with_other_data_is_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    workload: Any = synthetic.OtherData(home=os.getpid())
    with local_cluster(1, evaluate=synthetic.evaluate) as workers:
        message = r"worker tcp://\S+: data read is 'there' there and 'here' where the driver runs; give both the same"
        with pytest.raises(InputError, match=message):
            search(synthetic.Space(), workload, synthetic.settings(4), tmp_path, workers=workers)
    assert not (tmp_path / "evaluations.log").exists()


def test_only_the_worker_with_the_device_measures(synthetic: ModuleType, tmp_path: Path) -> None:
    with local_cluster(2) as workers:
        assert {workers.on_device(os.getpid) for _ in range(4)} == {workers.on_device(os.getpid)}
        assert len(set(worker_pids(workers))) == 2


@pytest.mark.slow
def test_a_scheduler_without_workers_is_said() -> None:
    port, said = free_port(), list[str]()
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(port), remote_cluster(address, on_wait=said.append):
        pass
    assert said == [
        f"the scheduler {address} has no workers yet; waiting for one: dask worker {address} --nthreads 1 "
        '--resources "device=1"'
    ]


@pytest.mark.slow
def test_no_worker_with_a_device_is_said() -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(port), worker(address), remote_cluster(address) as workers:
        workers.client.wait_for_workers(1)
        with pytest.raises(InputError, match=r"none of its 1 workers has the resource 'device', .*--resources"):
            workers.on_device(os.getpid)
