"""Does every job come back once and right when connections are cut and processes killed, on both ends?

Two accounts of a real `sshd` share one device lock. While their 200 jobs run, connections, shared ssh processes,
drivers and runners are killed at random moments. The device's append-only logs say what was started and done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bitwright.experiments.benchmarks import device_jobs, loopback_ssh
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.loopback_accounts import Account, two_accounts
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.transport import Device, Job, Journal, run_jobs
from bitwright.quant.errors import InputError

ROW = "transport_jobs"
JOBS, BREAKS = 200, 30
_DRIVER = "bitwright.experiments.benchmarks.device_jobs"
_MOST_S = 540.0
_SEARCH_S = 5.0  # for a process of the kind that is to be killed


@dataclass
class Desk:
    """One account with its jobs, and the process that drives them."""

    account: Account
    address: str
    journal: Path
    numbers: range
    models: Path
    log: Path
    sockets: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    done: bool = False

    def keep_driving(self) -> None:
        """Starts the driver when it does not run and is not done."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self.done = code == 0
            if code > 0:
                raise InputError(f"the driver ended with {code}: {self.log.read_text()[-600:]}")
            self.restarts += code < 0
        if not self.done:
            request = {
                "address": self.address,
                "journal": str(self.journal),
                "numbers": list(self.numbers),
                "models": str(self.models),
            }
            command = [sys.executable, "-m", _DRIVER, json.dumps(request)]
            environment = {**os.environ, "TMPDIR": str(self.sockets)}
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(command, stderr=log, env=environment)

    def jobs(self) -> list[Job]:
        """Its jobs."""
        return device_jobs.jobs_of(self.numbers, self.models, device_jobs.nonce_of(Journal(self.journal)))

    def events(self) -> list[tuple[str, str]]:
        """What its device's log says: event and job."""
        log = self.account.folder / "executions.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(line.split()[1], line.split()[2]) for line in lines]


@dataclass
class Breaker:
    """Breaks things at random moments of the run's progress."""

    server: loopback_ssh.LoopbackSsh
    sockets: Path
    desks: Sequence[Desk]
    random: random.Random
    broken: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        # Every kind equally often, at moments spread over all but the first and last few jobs.
        kinds = [self.cut, self.kill_shared, self.kill_driver, self.kill_runner, self.kill_asker]
        self._plan: list[tuple[float, Callable[[], int]]] = sorted(
            ((self.random.uniform(2, JOBS - 4), kinds[number % len(kinds)]) for number in range(BREAKS)),
            key=lambda entry: entry[0],
        )

    def break_what_is_due(self, done: int) -> None:
        """Does what the plan says for so many jobs done."""
        while self._plan and self._plan[0][0] <= done:
            _, kind = self._plan.pop(0)
            time.sleep(self.random.uniform(0, 0.3))
            stop_at = time.monotonic() + _SEARCH_S
            while not kind() and time.monotonic() < stop_at:
                time.sleep(0.002)

    def cut(self) -> int:
        """Every connection, at the server."""
        return self._count("connections cut", self.server.cut())

    def kill_shared(self) -> int:
        """The shared connections' processes, at the client."""
        return self._count("shared ssh processes killed", loopback_ssh.kill_shared_connections(self.sockets.iterdir()))

    def kill_driver(self) -> int:
        """One driver."""
        desk = self.random.choice([desk for desk in self.desks if desk.process and desk.process.poll() is None])
        assert desk.process
        desk.process.kill()
        return self._count("drivers killed", 1)

    def kill_runner(self) -> int:
        """A process that measures."""
        return self._count("runners killed", _kill(self._on_device(" work")))

    def kill_asker(self) -> int:
        """A process that waits on the device for a result."""
        return self._count("waiting processes killed", _kill(self._on_device(" job")))

    def _on_device(self, ending: str) -> list[int]:
        folders = [str(desk.account.folder) for desk in self.desks]
        return [
            pid
            for pid, line in _processes()
            if line.endswith(ending) and ".pyz" in line and any(folder in line for folder in folders)
        ]

    def _count(self, kind: str, killed: int) -> int:
        self.broken[kind] += killed > 0
        return killed


def run(bench: Bench) -> list[Record]:
    """Runs the jobs among the breaks and counts.

    Raises:
        InputError: there is no sshd here, or the jobs do not come to an end.
    """
    reason = loopback_ssh.missing()
    if reason:
        raise InputError(f"row {ROW}: {reason}")
    with tempfile.TemporaryDirectory(prefix="bw-") as name:
        root = Path(name)
        (root / "ssh").mkdir()
        server = loopback_ssh.LoopbackSsh(root / "ssh")
        try:
            with two_accounts(root) as accounts:
                desks = _desks(root, server, accounts)
                breaker = Breaker(server, root / "t", desks, random.Random(0))
                started = time.monotonic()
                _until_done(desks, breaker)
                return _records(desks, breaker, time.monotonic() - started)
        finally:
            server.stop()


def _desks(root: Path, server: loopback_ssh.LoopbackSsh, accounts: Sequence[Account]) -> list[Desk]:
    models = root / "models"
    models.mkdir()
    (root / "t").mkdir()  # a short name: sockets are in it
    device_jobs.write_models(models)
    shared = root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)  # as /tmp: both may write, neither may remove the other's
    half = JOBS // len(accounts)
    return [
        Desk(
            account=account,
            address=server.address(
                account.folder, user=account.user, python=account.python, lock=str(shared / "device.lock")
            ),
            journal=root / f"{place}.sqlite",
            numbers=range(place * half, (place + 1) * half),
            models=models,
            log=root / f"{place}.log",
            sockets=root / "t",
        )
        for place, account in enumerate(accounts)
    ]


def _until_done(desks: Sequence[Desk], breaker: Breaker) -> None:
    stop_at = time.monotonic() + _MOST_S
    while True:
        for desk in desks:
            desk.keep_driving()
        if all(desk.done for desk in desks):
            return
        if time.monotonic() > stop_at:
            logs = " ".join(desk.log.read_text()[-300:] for desk in desks)
            raise InputError(f"the jobs did not come to an end within {_MOST_S:g} s: {logs}")
        breaker.break_what_is_due(sum(event == "done" for desk in desks for event, _ in desk.events()))
        time.sleep(0.05)


def _records(desks: Sequence[Desk], breaker: Breaker, took_s: float) -> list[Record]:
    lost = doubled = wrong = started_again = 0
    spans: list[tuple[float, float]] = []
    for desk in desks:
        journal, jobs = Journal(desk.journal), desk.jobs()
        lost += sum(journal.result(job.id) is None for job in jobs)
        doubled += _doubled(desk.events())
        started_again += sum(max(0, count - 1) for count in Counter(desk.events()).values())
        with Device(desk.address) as device:
            results = run_jobs(device, jobs, journal)
        for number, job, result in zip(desk.numbers, jobs, results, strict=True):
            kept = json.loads((desk.account.folder / "jobs" / f"{job.id}.json").read_text())
            same = kept["measurement"] == json.loads(json.dumps(result.measurement.to_json()))
            wrong += not (same and result.job == job.id and device_jobs.is_right(result, number))
            spans.append(tuple(kept["span"]))
    spans.sort()
    at_once = sum(later[0] < earlier[1] for earlier, later in pairwise(spans))
    users = len({desk.account.user for desk in desks})
    table = [
        *({"what": kind, "times": str(count)} for kind, count in sorted(breaker.broken.items())),
        {"what": "jobs started again on the device", "times": str(started_again)},
        {"what": "users on the device", "times": str(users)},
        {"what": "seconds in all", "times": f"{took_s:.0f}"},
    ]
    figures = {"lost": lost, "doubled": doubled, "wrong": wrong, "at_once": at_once}
    figures["breaks"] = sum(breaker.broken.values())
    limits = {"breaks": Reach("≥", BREAKS)}
    return [
        record(
            f"{ROW}.{name}",
            area="hw_constraints",
            value=value,
            unit="jobs" if name != "breaks" else "cuts and kills",
            n=JOBS,
            reach=limits.get(name, Reach("=", 0)),
            table=table,
        )
        for name, value in figures.items()
    ]


def _doubled(events: Sequence[tuple[str, str]]) -> int:
    """Jobs that were started after they had been done; a done one more than once is among them."""
    done: set[str] = set()
    again: set[str] = set()
    for event, job in events:
        if job in done:
            again.add(job)
        if event == "done":
            done.add(job)
    return len(again)


def _processes() -> list[tuple[int, str]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            line = (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
            found.append((int(process.name), line.decode(errors="replace").strip()))
    return found


def _kill(pids: Sequence[int]) -> int:
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed
