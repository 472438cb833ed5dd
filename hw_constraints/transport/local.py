"""This machine as a device: `local:/folder`. What the runner does is the same; only the wire is missing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bitwright.hw_constraints.transport.address import DeviceAddress
from bitwright.hw_constraints.transport.base import Answer, run_here

_NOT_FOUND = 127  # as shells say it


class LocalTransport:
    """Runs commands here."""

    def __init__(self, address: DeviceAddress) -> None:
        self._label = str(address)

    def execute(self, command: Sequence[str], payload: bytes, *, timeout_s: float) -> Answer:
        """See `Transport.execute`."""
        if shutil.which(command[0]) is None:
            return Answer(code=_NOT_FOUND, output=b"", errors=f"{command[0]}: not found")
        return run_here(command, payload, timeout_s=timeout_s, device=self._label)

    def close(self) -> None:
        """Nothing is held open."""


TRANSPORT = LocalTransport
