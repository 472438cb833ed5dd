"""A real `sshd` on the loopback interface, with keys and accounts of its own; for tests and for the jobs' row."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

_START_S = 10.0
_PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd(8); only root's needs it


def missing() -> str | None:
    """Why there can be no server here, None when there can."""
    absent = [name for name in ("sshd", "ssh", "ssh-keygen") if _program(name) is None]
    return f"{', '.join(absent)} not here: apt-get install openssh-server openssh-client" if absent else None


class LoopbackSsh:
    """A server on a free port that lets one key in, and a client configuration that knows both.

    Attributes:
        port: where it listens.
        config: an ssh_config file that brings the identity and the known hosts.
        known_hosts: the file with the server's key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.chmod(0o755)  # other accounts' keys are read as these accounts
        self.host_key, identity = self._key("host"), self._key("identity")
        authorized = folder / "authorized_keys"
        shutil.copy(identity.with_suffix(".pub"), authorized)
        authorized.chmod(0o644)
        self.port = _free_port()
        self.known_hosts = folder / "known_hosts"
        key = self.host_key.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {' '.join(key)}\n")
        self.config = folder / "ssh_config"
        self.config.write_text(
            f"Host *\n  IdentityFile {identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        self._server_config = folder / "sshd_config"
        self._server_config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nAuthorizedKeysFile {authorized}\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\nPrintMotd no\n"
        )
        self._server = self._started()

    def address(self, folder: Path | str, *, user: str | None = None, python: str = sys.executable, **more: str) -> str:
        """The address of an account here."""
        settings = {"config": str(self.config), "python": python, **more}
        query = "&".join(f"{name}={quote(value)}" for name, value in settings.items())
        return f"ssh://{user or getpass.getuser()}@127.0.0.1:{self.port}{folder}?{query}"

    def cut(self) -> int:
        """Kills every connection's process, as a wire that breaks would; gives their number."""
        connections = children_of(self._server.pid)
        for pid in connections:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(connections)

    def stop(self) -> None:
        """Stops listening and cuts what is open."""
        if self._server.poll() is None:
            connections = children_of(self._server.pid)
            self._server.kill()
            self._server.wait()
            for pid in connections:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Listens again on the same port."""
        self._server = self._started()

    def _key(self, name: str) -> Path:
        path = self._folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def _started(self) -> subprocess.Popen[bytes]:
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        log = (self._folder / "sshd.log").open("ab")
        program = _program("sshd")
        assert program
        # sshd wants its absolute path: it starts itself again for each connection.
        server = subprocess.Popen(
            [program, "-D", "-e", "-f", self._server_config], stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()
        stop_at = time.monotonic() + _START_S
        while time.monotonic() < stop_at:
            if server.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return server
            time.sleep(0.05)
        server.kill()
        raise RuntimeError(f"sshd does not listen: {(self._folder / 'sshd.log').read_text()}")


def kill_shared_connections(sockets: Iterable[Path]) -> int:
    """Kills the background `ssh` processes whose names say sockets in these folders; gives their number."""
    killed, folders = 0, [f"ssh: {folder}/" for folder in sockets]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (process / "cmdline").read_text(errors="replace").startswith(tuple(folders)):
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def children_of(pid: int) -> list[int]:
    """The processes that a process has started; Linux' /proc/PID/task/TID/children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(each) for each in text.split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
