"""What goes wrong with a device, and which of it a second try may cure."""

from __future__ import annotations

from typing import ClassVar

from bitwright.quant.errors import InputError


class DeviceError(InputError):
    """A device cannot be used; the message says which one and what to do."""

    cured_by_trying: ClassVar[bool] = False
    ends_the_job: ClassVar[bool] = False  # the same job would fail again: the next try is a new one


class HostRefuses(DeviceError):
    """Nobody listens there, or the account is not let in."""


class UnknownHostKey(DeviceError):
    """The host's key is not known here, or is another than it was."""


class Vanished(DeviceError):
    """The connection was cut, or the process at the other end was ended."""

    cured_by_trying = True


class WrongHash(DeviceError):
    """A file there is not what its hash says."""

    cured_by_trying = True


class DeviceFull(DeviceError):
    """There is no room."""


class LacksSoftware(DeviceError):
    """Python or a runtime is missing."""


class Busy(DeviceError):
    """It measured for somebody else all the time."""


class Rubbish(DeviceError):
    """What answered is not the runner."""


class Rejected(DeviceError):
    """The runtime does not take the model."""

    ends_the_job = True


class Unusable(DeviceError):
    """Anything else that it says itself."""

    ends_the_job = True


_OF_KIND: dict[str, type[DeviceError]] = {
    "busy": Busy,
    "full": DeviceFull,
    "lacks-runtime": LacksSoftware,
    "old-python": LacksSoftware,
    "rejected": Rejected,
    "wrong-hash": WrongHash,
}
_SAYS = {
    "busy": "{device}: {message}; try again later, or wait longer",
    "full": "{device}: the device is full: {message}; make room, or name another folder in the address",
    "lacks-runtime": "{device}: {message}",
    "old-python": "{device}: its Python is {message}; 3.8 or later is needed: install one, name it with ?python=PATH",
    "rejected": "{device}: the runtime rejects {message}",
    "wrong-hash": "{device}: {message}",
    "forbidden": "{device}: {message}; name a folder that the account may write in the address",
}


def refusal_of(device: str, kind: str, message: str) -> DeviceError:
    """The error for what a device says itself."""
    text = _SAYS.get(kind, "{device}: {message}").format(device=device, message=message)
    return _OF_KIND.get(kind, Unusable)(text)
