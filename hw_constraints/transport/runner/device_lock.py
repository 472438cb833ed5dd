"""One measurement at a time on a device: a lock that all accounts share and that says who holds it.

The lock is `flock`'s: it ends with the last process that holds the file open, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.transport.runner.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where every account may write: /tmp on Linux, the other on Android.
_FOLDERS = ("/tmp", "/data/local/tmp")
_NAME = "bitwright-device.lock"
_LOOK_EVERY_S = 0.05


def default_path() -> str:
    """The device's lock file.

    Raises:
        Refusal: there is no folder for it.
    """
    for folder in _FOLDERS:
        if os.access(folder, os.W_OK):
            return os.path.join(folder, _NAME)
    raise Refusal("unusable", f"none of {', '.join(_FOLDERS)} can be written: the device's lock has no place")


@contextmanager
def held(path: str, wait_s: float, holder: dict[str, Any]) -> Iterator[int]:
    """Waits for the lock and holds it; gives the descriptor, which children that must hold it, too, inherit.

    Args:
        path: the lock file.
        wait_s: seconds to wait at most.
        holder: what to say to others: `user`, `pid`, `job`.

    Raises:
        Refusal: somebody else held it all the time.
    """
    handle = _open(path)
    try:
        stop_at = time.monotonic() + wait_s
        while not try_lock(handle):
            if time.monotonic() > stop_at:
                raise Refusal("busy", f"measured for somebody else for {wait_s:g} s: {describe(holder_of(path))}")
            time.sleep(_LOOK_EVERY_S)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        _write(handle, json.dumps(dict(holder, since=since)))
        try:
            yield handle
        finally:
            _write(handle, "")
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Takes the lock if nobody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(path: str) -> dict[str, Any]:
    """Who holds the lock, as far as the file says."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):  # it is being written, or nobody holds it
        return {}
    return found if isinstance(found, dict) else {}


def describe(holder: dict[str, Any]) -> str:
    """The holder in words."""
    if not holder:
        return "the holder did not say who it is"
    fields = (f"{key} {holder[key]}" for key in ("user", "pid", "job", "since") if key in holder)
    return ", ".join(fields)


def _open(path: str) -> int:
    # An existing file without O_CREAT: where fs.protected_regular is set, Linux refuses to "create" somebody else's
    # file in a folder like /tmp (proc_sys_fs(5)). No link is followed out of that folder.
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            os.fchmod(handle, 0o666)  # the account's umask would keep the others out
        except FileExistsError:  # another account was first
            return _open(path)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refusal("unusable", f"{path}: the device's lock is not a regular file; remove it")
    return handle


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode("utf-8"), 0)
