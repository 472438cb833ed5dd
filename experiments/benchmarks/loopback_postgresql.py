"""A PostgreSQL server of one's own on the loopback interface; for tests and for the row of killed searches."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_INSTALLED = Path("/usr/lib/postgresql")  # Debian's; the programs are not on the PATH there


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    found = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@dataclass(frozen=True)
class LoopbackPostgresql:
    """A running server.

    Attributes:
        programs: where `pg_ctl` is.
        folder: its data and log.
        port: where it listens.
    """

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts it on the data that it has."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._call("pg_ctl", "start", "-w", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log")

    def stop(self) -> None:
        """Stops it as a crash would: connections are cut, the next start recovers."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate", "-D", f"{self.folder}/data")

    def _call(self, program: str, *arguments: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        subprocess.run(
            [self.programs / program, *arguments], check=True, user=user, stdout=subprocess.DEVNULL, cwd=self.folder
        )


@contextmanager
def loopback_postgresql(programs: Path) -> Iterator[LoopbackPostgresql]:
    """A new server with an empty database, gone with the context.

    Args:
        programs: see the function of that name.
    """
    folder = Path(tempfile.mkdtemp(prefix="bitwright-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    server = LoopbackPostgresql(programs, folder, free_port())
    try:
        server._call("initdb", "-D", f"{folder}/data", "-U", "postgres", "--auth", "trust", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
