"""A Dask cluster over TLS whose processes can be killed: whoever dies is started again, as a supervisor would."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bitwright.experiments.benchmarks.loopback_postgresql import free_port


def tls_settings(folder: Path) -> dict[str, str]:
    """Dask's settings, as environment variables, for one certificate that all sides share and trust.

    Args:
        folder: where the key and the certificate are written.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bitwright",
         "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    sides = ("SCHEDULER", "WORKER", "CLIENT")
    own = {f"DASK_DISTRIBUTED__COMM__TLS__{side}__CERT": str(certificate) for side in sides}
    own |= {f"DASK_DISTRIBUTED__COMM__TLS__{side}__KEY": str(key) for side in sides}
    own["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(certificate)
    own["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] = "true"
    return own


@dataclass
class Supervised:
    """Processes that are kept running.

    Attributes:
        commands: by name.
        environment: of all of them.
        log: what they print.
        once: the one that is done when it ends without an error; workers end so when they lose their scheduler.
        done: whether that has happened.
    """

    commands: Mapping[str, list[str]]
    environment: Mapping[str, str]
    log: Path
    once: str
    done: bool = False
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def tend(self) -> None:
        """Starts what does not run."""
        for name, command in self.commands.items():
            process = self._running.get(name)
            if (process is not None and process.poll() is None) or (self.done and name == self.once):
                continue
            if process is not None and process.returncode == 0 and name == self.once:
                self.done = True
                continue
            with self.log.open("ab") as log:
                self._running[name] = subprocess.Popen(
                    command, env={**os.environ, **self.environment}, stdout=log, stderr=log
                )

    def kill(self, kind: str, luck: random.Random) -> bool:
        """Kills one of those whose name begins so; False when none runs."""
        alive = sorted(name for name, each in self._running.items() if name.startswith(kind) and each.poll() is None)
        if not alive:
            return False
        process = self._running[luck.choice(alive)]
        process.kill()
        process.wait()
        return True

    def end(self) -> None:
        """Kills all."""
        for process in self._running.values():
            process.kill()
            process.wait()


@contextmanager
def supervised_search(folder: Path, workers: int, driver: Mapping[str, str]) -> Iterator[tuple[Supervised, str]]:
    """A scheduler, its workers and a search's driver over TLS; gives them and the scheduler's address.

    Args:
        folder: for certificates and the log.
        workers: how many.
        driver: name of its module, and the request without the scheduler's address, as JSON.
    """
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    dask = [sys.executable, "-m"]
    request = driver["request"].replace("SCHEDULER", address)
    commands = {
        "scheduler": [*dask, "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"],
        # Without a nanny: killed as a whole, as a machine that goes away.
        **{
            f"worker{number}": [
                *dask, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                "--death-timeout", "20",
            ]
            for number in range(workers)
        },
        "driver": [*dask, driver["module"], request],
    }  # fmt: skip
    processes = Supervised(commands, tls_settings(folder), folder / "log.txt", once="driver")
    try:
        yield processes, address
    finally:
        processes.end()
