"""A device behind OpenSSH: `ssh://user@host:port/folder`, through the system's own client.

The client brings the user's configuration with it: identities, agents, jump hosts, hardware keys. Nothing is asked
(BatchMode), a host key that is not known is refused, and one connection is shared by all commands (ControlMaster).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bitwright.hw_constraints.transport.address import DeviceAddress
from bitwright.hw_constraints.transport.base import Answer, run_here
from bitwright.hw_constraints.transport.failures import DeviceError, HostRefuses, UnknownHostKey, Vanished
from bitwright.quant.errors import InputError

_CONNECT_S = 10
_KEEP_ALIVE_S, _KEEP_ALIVE_TRIES = 5, 3  # a wire that says nothing for 15 s is cut
_SHARED_FOR_S = 60  # a shared connection outlives a killed driver by that
_FAILED = 255  # ssh's exit code for its own failures, ssh(1)
_REFUSES = (
    r"Connection refused|No route to host|Network is unreachable|Could not resolve hostname"
    r"|Connection timed out|Operation timed out|Permission denied|Too many authentication failures|Bad configuration"
    r"|Bad owner or permissions|Can't open user config file|no matching .* found"
)


class SshTransport:
    """Runs commands through `ssh`.

    Attributes:
        sockets: the folder with the shared connection's socket.
    """

    def __init__(self, address: DeviceAddress) -> None:
        if not address.host:
            raise InputError(f"{address}: ssh needs a host: ssh://user@host:port/folder")
        self._label = str(address)
        # Of its own and short: the socket's path has to fit into 108 bytes, unix(7).
        self.sockets = Path(tempfile.mkdtemp(prefix="bw-ssh-"))
        self._ssh = ["ssh", *_options(address, self.sockets)]
        self._host = address.host.strip("[]")

    def execute(self, command: Sequence[str], payload: bytes, *, timeout_s: float) -> Answer:
        """See `Transport.execute`.

        Raises:
            DeviceError: what ssh itself says, by what to do about it.
        """
        line = [*self._ssh, "--", self._host, shlex.join(command)]
        answer = run_here(line, payload, timeout_s=timeout_s, device=self._label)
        if answer.code == _FAILED:
            raise failure_of(self._label, answer.errors)
        return answer

    def close(self) -> None:
        """Ends the shared connection."""
        command = [*self._ssh, "-O", "exit", "--", self._host]
        subprocess.run(command, capture_output=True, check=False, timeout=_CONNECT_S)
        shutil.rmtree(self.sockets, ignore_errors=True)


def failure_of(device: str, errors: str) -> DeviceError:
    """The error for what ssh wrote when it ended with 255."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1] if lines else "the connection ended without a word"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in errors:
        return UnknownHostKey(
            f"{device}: the host's key is not the one that is known: somebody may be in between; "
            "if the host was set up anew, remove the old key with ssh-keygen -R and add the new one"
        )
    if "Host key verification failed" in errors:
        return UnknownHostKey(
            f"{device}: the host's key is not known; compare it with the host's owner and connect once by hand with ssh"
        )
    refusal = next((line for line in lines if re.search(_REFUSES, line)), None)
    if refusal:
        return HostRefuses(f"{device}: {refusal}; see that `ssh` to it works without a question")
    return Vanished(f"{device}: the connection was cut: {last}")


def _options(address: DeviceAddress, sockets: Path) -> list[str]:
    settings = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": _CONNECT_S,
        "ServerAliveInterval": _KEEP_ALIVE_S,
        "ServerAliveCountMax": _KEEP_ALIVE_TRIES,
        "ControlMaster": "auto",
        "ControlPath": sockets / "%C",
        "ControlPersist": _SHARED_FOR_S,
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "LogLevel": "ERROR",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    options += ["-F", address.config] if address.config else []
    options += ["-l", address.user] if address.user else []
    options += ["-p", str(address.port)] if address.port else []
    return ["-T", *options]


TRANSPORT = SshTransport
