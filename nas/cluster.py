"""Candidates evaluated on Dask: processes of this machine, or the workers of a scheduler somewhere.

The cluster keeps nothing: a result is written under its candidate's hash by the worker that found it, where the folder
is shared, and by the driver before it is told. So a task that runs again is a look-up. A worker that dies has its task
run again elsewhere; a candidate whose workers died three times is told as failed. A scheduler that is lost is waited
for, and what was not known yet is submitted again.

Latency is measured one at a time: only the worker with the resource `device` does it (`dask worker --resources
"device=1"`, one beside each device).
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from bitwright.nas.objective import score
from bitwright.nas.result import Outcome, Result
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.standing import Standing
from bitwright.nas.worker_tasks import evaluated, given, software, timed_result
from bitwright.nas.workers import Evaluate
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
DEVICE = "device"
# Deaths of its workers after which a candidate is given up; Dask allows this many less one.
_MOST_DEATHS = 3
# Looking after the scheduler, and trying to reach a lost one.
_PATIENCE_S = 2.0
_SLOTS_S = 1.0
_CONNECT = "10s"
_SETTINGS = {
    "distributed.scheduler.allowed-failures": _MOST_DEATHS - 1,
    "distributed.scheduler.worker-saturation": 1.0,  # a worker that dies takes one candidate with it, no queue
}


class Cluster:
    """See `workers.Workers`; `connect` makes one, and `begin` has been called before anything is submitted."""

    isolated = True

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        evaluate: Evaluate | None = None,
        on_wait: Callable[[str], None] = lambda message: None,
    ) -> None:
        """As `workers.Workers` is used.

        Args:
            connect: reaches the scheduler; raises OSError when it is not there.
            evaluate: scores a candidate in one task; by default all but the latency in one, the latency in another.
            on_wait: told in words when the scheduler is lost.
        """
        self._connect, self._evaluate, self._on_wait = connect, evaluate, on_wait
        self.client = connect()
        self.address = str(self.client.scheduler.address)
        self._slots, self._slots_until = 1, 0.0
        self._begun = 0  # tasks of one setup are no others' tasks
        self._candidates: dict[str, tuple[Candidate, Standing | None]] = {}
        self._futures: dict[str, Future] = {}

    @property
    def dashboard(self) -> str | None:
        """Address of Dask's own page; None where the scheduler has none, which takes bokeh."""
        has_page = "dashboard" in self.client.scheduler_info()["services"]
        return self.client.dashboard_link if has_page else None

    @property
    def slots(self) -> int:
        """Threads of all workers that are there, as of `_SLOTS_S` ago at most; at least one is waited for.

        An eighth more, which waits at the scheduler: then no worker of many waits for the driver.
        """
        now = time.monotonic()
        if now >= self._slots_until:
            with suppress(OSError):  # a lost scheduler is noticed by `next`
                self._slots = max(1, sum(self.client.nthreads().values()))
            self._slots_until = now + _SLOTS_S
        return self._slots + self._slots // 8

    def say_without_workers(self) -> None:
        """Tells that there are no workers yet: they are waited for, however long that takes."""
        if not self.client.nthreads():
            self._on_wait(
                f"the scheduler {self.address} has no workers yet; waiting for one: dask worker {self.address} "
                f'--nthreads 1 --resources "{DEVICE}=1"'
            )

    def on_device(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls it on the worker with the device.

        Raises:
            InputError: no worker has one.
        """
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if workers and not any(worker["resources"].get(DEVICE) for worker in workers):
            raise InputError(
                f"scheduler {self.address}: none of its {len(workers)} workers has the resource {DEVICE!r}, and "
                f'latency is measured where it is; start one beside the device: dask worker … --resources "{DEVICE}=1"'
            )
        future = self.client.submit(function, *args, **kwargs, resources={DEVICE: 1}, pure=False)
        result: T = future.result()
        return result

    def begin(self, setup: Setup) -> None:
        """See `workers.Workers`."""
        self._setup = setup
        self._begun += 1
        self._share()

    def submit(self, candidate: Candidate, standing: Standing | None = None) -> None:
        """See `workers.Workers`."""
        if candidate.key not in self._candidates:
            self._candidates[candidate.key] = (candidate, standing)
            self._send(candidate, standing)

    def next(self) -> Result:
        """See `workers.Workers`.

        Raises:
            InputError: a worker runs other code than the driver, or cannot do what every candidate needs.
        """
        while True:
            for key, future in self._futures.items():
                if future.done():
                    result = self._result(key, future)
                    if result is not None:
                        del self._futures[key], self._candidates[key]
                        return result
                    break  # the scheduler was lost; all futures are new ones
            else:
                self._wait()

    def _wait(self) -> None:
        from distributed import wait

        try:
            with self.client.as_current():
                wait(list(self._futures.values()), timeout=_PATIENCE_S, return_when="FIRST_COMPLETED")
        except (TimeoutError, CancelledError, OSError):
            if self.client.status != "running":
                self._reconnect()

    def _result(self, key: str, future: Future) -> Result | None:
        """What became of a task that is over; None when it was lost with the scheduler."""
        from distributed import KilledWorker

        try:
            found: Result = future.result()
        except KilledWorker as error:
            return self._given_up(self._candidates[key][0], error)
        except (CancelledError, OSError):
            if future.status == "error":
                raise  # the evaluation's own: a disk is full
            self._reconnect()
            return None
        return found

    def _given_up(self, candidate: Candidate, error: Any) -> Result:
        return Result(
            key=candidate.key,
            values=dict(candidate.values),
            outcome=Outcome.FAILED,
            stage="",
            reason=f"{_MOST_DEATHS} workers died while they evaluated it, the last one at {error.last_worker.address}; "
            "out of memory, or a crash: see the worker's log",
        )

    def _reconnect(self) -> None:
        self._on_wait(f"the scheduler {self.address} is lost; waiting for it (Ctrl-C ends the search, nothing is lost)")
        with suppress(TimeoutError, OSError):
            self.client.close(timeout=_PATIENCE_S)
        while True:
            try:
                self.client = self._connect()
                break
            except OSError:
                continue  # it has waited for `_CONNECT`
        self._on_wait("the scheduler is back")
        self._share()
        for candidate, standing in self._candidates.values():
            self._send(candidate, standing)

    def _share(self) -> None:
        # A task and not scattered data: that would be lost with the worker that holds it.
        self._shared = self.client.submit(given, self._setup, pure=False)
        self._fingerprint = dict(self._setup.workload.fingerprint)

    def _send(self, candidate: Candidate, standing: Standing | None) -> None:
        timed = self._evaluate is None and bool(self._setup.references)
        task = self.client.submit(
            evaluated,
            self._evaluate or score,
            candidate,
            standing,
            self._shared,
            self._fingerprint,
            software(),
            timed,
            key=f"{candidate.key}-score-{self._begun}",
        )
        if timed:
            task = self.client.submit(
                timed_result,
                task,
                self._shared,
                key=f"{candidate.key}-latency-{self._begun}",
                resources={DEVICE: 1},
            )
        self._futures[candidate.key] = task


@contextmanager
def local_cluster(workers: int, **options: Any) -> Iterator[Cluster]:
    """Worker processes of this machine, the first of which measures; they end with the context.

    Args:
        workers: how many.
        options: see `Cluster`.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    has_page = importlib.util.find_spec("bokeh") is not None
    options_of_scheduler = {"host": "127.0.0.1", "dashboard": has_page, "dashboard_address": "127.0.0.1:0"}
    common = {"nthreads": 1, "preload": "bitwright.nas.worker_signals", "silence_logs": logging.CRITICAL}
    specs = {
        number: {"cls": Nanny, "options": {**common, "resources": {DEVICE: 1} if number == 0 else {}}}
        for number in range(workers)
    }
    with dask.config.set(_SETTINGS):
        cluster = SpecCluster(
            workers=specs,
            scheduler={"cls": Scheduler, "options": options_of_scheduler},
            silence_logs=logging.CRITICAL,
        )
        with cluster:
            found = Cluster(lambda: Client(cluster), **options)
            try:
                yield found
            finally:
                found.client.close()


@contextmanager
def remote_cluster(address: str, **options: Any) -> Iterator[Cluster]:
    """The workers of a scheduler; certificates for `tls://` are Dask's own settings (`distributed.comm.tls`).

    Args:
        address: such as `tcp://head:8786` or `tls://head:8786`.
        options: see `Cluster`.

    Raises:
        InputError: nothing answers there.
    """
    import dask
    from distributed import Client

    def connect() -> Client:
        return Client(address, timeout=_CONNECT, set_as_default=False)

    with dask.config.set(_SETTINGS):
        try:
            found = Cluster(connect, **options)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"scheduler {address!r} cannot be reached ({' '.join(str(error).split())}); start one with "
                "dask scheduler, or leave the scheduler out to search on this machine"
            ) from error
        try:
            found.say_without_workers()
            yield found
        finally:
            found.client.close()
