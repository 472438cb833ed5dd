"""Where a device is: `ssh://user@host:port/folder`, `adb://SERIAL/folder`, `local:/folder`.

Behind a `?` stand settings: `python` (the interpreter there), `lock` (the device's lock file), `config` (an ssh_config
file here). A folder that begins with `/~/` is in the account's home.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from bitwright.quant.errors import InputError

_SETTINGS = ("config", "lock", "python")
# Nothing that ssh or adb could take for an option.
_NAME = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_][A-Za-z0-9_.:-]*)\Z")
_FORM = "expected ssh://user@host:port/folder, adb://SERIAL/folder or local:/folder"


@dataclass(frozen=True, kw_only=True)
class DeviceAddress:
    """A device and where on it Bitwright works.

    Attributes:
        scheme: the transport's name.
        user: the account; empty for the transport's own choice.
        host: host name, or the serial of an Android device.
        port: None for the usual one.
        folder: on the device; `~` is the account's home.
        python: the interpreter on the device.
        lock: the device's lock file; empty for the one that all accounts share.
        config: an ssh_config file on this machine; empty for the user's own.
    """

    scheme: str
    user: str = ""
    host: str = ""
    port: int | None = None
    folder: str = "~/.bitwright"
    python: str = "python3"
    lock: str = ""
    config: str = ""

    def __str__(self) -> str:
        account = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{account}{self.host}{port}" if self.host else self.scheme


def parse_address(text: str) -> DeviceAddress:
    """Reads an address.

    Raises:
        InputError: it is not one.
    """
    parts = urlsplit(text)
    if not parts.scheme or (parts.scheme != "local" and not parts.netloc):
        raise InputError(f"device {text!r}: {_FORM}")
    user, host, port = _place(text, parts.scheme, parts.netloc)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise InputError(f"device {text!r}: unknown setting {name!r}; there are: {', '.join(_SETTINGS)}")
        if not value:
            raise InputError(f"device {text!r}: setting {name!r} is empty")
    folder = unquote(parts.path)
    if folder.startswith("/~/"):
        folder = folder[1:]
    given = {"folder": folder} if folder not in ("", "/") else {}
    return DeviceAddress(scheme=parts.scheme, user=user, host=host, port=port, **given, **settings)


def _place(text: str, scheme: str, netloc: str) -> tuple[str, str, int | None]:
    """Account, host and port; an adb serial may hold a colon itself."""
    user, at, host = netloc.rpartition("@")
    port = None
    if scheme != "adb":
        host, digits = re.match(r"(.*?)(?::([^\]:]*))?\Z", host).groups()  # type: ignore[union-attr]
        if digits is not None:
            if not digits.isdigit() or not 0 < int(digits) < 1 << 16:
                raise InputError(f"device {text!r}: port {digits!r}; expected a number from 1 to 65535")
            port = int(digits)
    if (at and not _NAME.match(user)) or (host and not _NAME.match(host)):
        raise InputError(f"device {text!r}: {netloc!r} is no account at a host; {_FORM}")
    return user, host, port
