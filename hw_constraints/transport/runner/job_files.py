"""What a device keeps of its jobs: a result for each, written at once or not at all, and a log of what was run.

jobs/ID.json    the result
jobs/ID.lock    held by the process that works on it
jobs/ID.err     what that process, or the runtime in it, wrote last
executions.log  appended: when which job was started and done
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from typing import Any

from bitwright.hw_constraints.transport.runner.device_lock import try_lock
from bitwright.hw_constraints.transport.runner.refusal import Refusal

RESERVED_BYTES = 1 << 20  # set aside before a job runs: a disk that fills up meanwhile must not cost the result


class JobFiles:
    """The files of one job."""

    def __init__(self, folder: str, job: str) -> None:
        self.folder, self.job = folder, job
        self._stem = os.path.join(folder, "jobs", job)
        self.errors = self._stem + ".err"
        os.makedirs(os.path.join(folder, "jobs"), exist_ok=True)

    def result(self) -> dict[str, Any] | None:
        """The result, if there is one."""
        try:
            with open(self._stem + ".json", encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        return found if isinstance(found, dict) else None

    def lock(self) -> int | None:
        """A descriptor that holds the job, None when a process works on it."""
        handle = os.open(self._stem + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if try_lock(handle):
            return handle
        os.close(handle)
        return None

    def reserve(self) -> None:
        """Sets room aside for the result.

        Raises:
            Refusal: there is none.
        """
        try:
            with open(self._stem + ".part", "wb") as file:
                file.write(b"\0" * RESERVED_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(self._stem + ".part")
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(self.folder).free
            raise Refusal("full", f"{free} bytes are free, {RESERVED_BYTES} are needed") from error

    def keep(self, result: dict[str, Any]) -> None:
        """Writes the result into the room that was set aside; it appears whole."""
        text = json.dumps(result).encode("utf-8")
        with open(self._stem + ".part", "r+b") as file:
            file.write(text)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._stem + ".part", self._stem + ".json")

    def forget(self) -> None:
        """Removes a result that the next try may change."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._stem + ".json")

    def log(self, event: str) -> None:
        """Appends a line; short appends are not mixed with others' (write(2), O_APPEND)."""
        handle = os.open(os.path.join(self.folder, "executions.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, f"{time.time():.3f} {event} {self.job}\n".encode())
        finally:
            os.close(handle)

    def starts(self) -> int:
        """How often the job was started since it last ended with a result, or with a refusal that was not kept."""
        started = 0
        try:
            with open(os.path.join(self.folder, "executions.log"), encoding="utf-8") as file:
                for line in file:
                    _, event, job = line.split()
                    if job == self.job:
                        started = started + 1 if event == "start" else 0
        except FileNotFoundError:
            return 0
        return started

    def last_words(self) -> str:
        """The last line that the job's process wrote before it ended."""
        try:
            with open(self.errors, encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file if line.strip()]
        except FileNotFoundError:
            lines = []
        return lines[-1] if lines else "it wrote nothing"
