"""An Android device behind `adb`: `adb://SERIAL/folder`, through the platform tools' own client.

`adb shell` carries bytes unchanged and gives the command's exit code since its second shell protocol (Android 7).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from bitwright.hw_constraints.transport.address import DeviceAddress
from bitwright.hw_constraints.transport.base import Answer, run_here
from bitwright.hw_constraints.transport.failures import HostRefuses, Vanished
from bitwright.quant.errors import InputError

_ADB_FAILED = 1
# What adb itself says; a command there may end with 1, too.
_OWN_WORDS = re.compile(r"^(?:adb: |error: |\* failed to start daemon)", re.MULTILINE)
_VANISHED = re.compile(r"closed|protocol fault|device still authorizing|connection reset", re.IGNORECASE)


class AdbTransport:
    """Runs commands through `adb`."""

    def __init__(self, address: DeviceAddress) -> None:
        if not address.host:
            raise InputError(f"{address}: adb needs a serial (`adb devices`): adb://SERIAL/data/local/tmp/bitwright")
        self._label, self._serial = str(address), address.host

    def execute(self, command: Sequence[str], payload: bytes, *, timeout_s: float) -> Answer:
        """See `Transport.execute`.

        Raises:
            DeviceError: what adb itself says.
        """
        line = ["adb", "-s", self._serial, "shell", "-T", shlex.join(command)]
        answer = run_here(line, payload, timeout_s=timeout_s, device=self._label)
        own = _OWN_WORDS.search(answer.errors)
        if answer.code == _ADB_FAILED and own:
            said = answer.errors[own.start() :].splitlines()[0]
            if _VANISHED.search(said):
                raise Vanished(f"{self._label}: the connection was cut: {said}")
            raise HostRefuses(f"{self._label}: {said}; see that `adb devices` lists it as `device`")
        return answer

    def close(self) -> None:
        """Adb's server holds the connection; it serves others, too."""


TRANSPORT = AdbTransport
