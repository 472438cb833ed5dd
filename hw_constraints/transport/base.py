"""What a transport is: it runs one command on a device, with bytes in and bytes out. Everything else is built on that.

A new one is one file in this folder with a module-level `TRANSPORT`; third parties register through the entry-point
group `bitwright.transports`. Each is tested by the contract suite.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bitwright.hw_constraints.transport.address import DeviceAddress, parse_address
from bitwright.hw_constraints.transport.failures import Vanished
from bitwright.quant.errors import InputError
from bitwright.quant.extension_point import ExtensionPoint


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command left.

    Attributes:
        code: its exit code; negative for the signal that ended it, where the transport knows.
        output: standard output.
        errors: standard error, the transport's own words among it.
    """

    code: int
    output: bytes
    errors: str


@runtime_checkable
class Transport(Protocol):
    """A way to one device."""

    def execute(self, command: Sequence[str], payload: bytes, *, timeout_s: float) -> Answer:
        """Runs a command there.

        Args:
            command: program and arguments.
            payload: its standard input.
            timeout_s: seconds until the device counts as vanished.

        Raises:
            DeviceError: the way there fails, as opposed to the command.
        """

    def close(self) -> None:
        """Ends what it holds open."""


class TransportKind(Protocol):
    """What a transport's file offers."""

    def __call__(self, address: DeviceAddress) -> Transport:
        """A transport to that device; it connects when it is used.

        Raises:
            InputError: the address lacks something, or this machine does.
        """


TRANSPORTS = ExtensionPoint(
    kind="transport", package="bitwright.hw_constraints.transport", marker="TRANSPORT", group="bitwright.transports"
)


def list_transports() -> tuple[str, ...]:
    """Names of all transports, without importing them."""
    return TRANSPORTS.names()


def open_transport(address: DeviceAddress | str) -> Transport:
    """The way to a device.

    Raises:
        InputError: the address is none, or names an unknown transport.
    """
    place = parse_address(address) if isinstance(address, str) else address
    kind: TransportKind = TRANSPORTS.load(place.scheme)
    transport = kind(place)
    if not isinstance(transport, Transport):
        raise InputError(f"transport {place.scheme!r}: {transport!r} lacks execute or close")
    return transport


def run_here(command: Sequence[str], payload: bytes, *, timeout_s: float, device: str) -> Answer:
    """Runs a command of this machine: the device's own, or the client of a wire.

    Raises:
        Vanished: it took too long.
        InputError: there is no such program.
    """
    # Not a pipe: what stays behind on purpose (ssh's shared connection) may keep standard error open.
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                list(command), input=payload, stdout=subprocess.PIPE, stderr=errors, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise Vanished(f"{device}: no answer within {timeout_s:g} s") from error
        except FileNotFoundError as error:
            raise InputError(f"{device}: {command[0]} is not installed here") from error
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
    return Answer(code=done.returncode, output=done.stdout, errors=said)
