"""Answers one question about this device or one of its jobs: JSON from standard input, JSON to standard output.

hello   what is here: Python, processor, runtimes
job     the result of a job; starts it when there is none and nobody works on it, and waits a while
work    (for itself) does a job in this process
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from typing import Any

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure.conditions import QUIET_MALLOC
from bitwright.hw_constraints.transport.runner.device_lock import default_path, describe, holder_of
from bitwright.hw_constraints.transport.runner.job_files import JobFiles
from bitwright.hw_constraints.transport.runner.refusal import Refusal
from bitwright.hw_constraints.transport.runner.runtimes import found
from bitwright.hw_constraints.transport.runner.work import work

MARK = "bitwright-device "  # as in `receive`
_LOOK_EVERY_S = 0.02


def main() -> int:
    """Serves one request."""
    verb = sys.argv[1]
    request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
    folder = os.path.abspath(os.path.expanduser(request["folder"]))
    if verb == "work":
        work(folder, request["job"])
        return 0
    try:
        answer = hello(folder, request) if verb == "hello" else ask(folder, request)
    except Refusal as refusal:
        answer = refusal.to_json()
    except OSError as error:
        kind = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "forbidden"
        answer = Refusal(kind, f"{error.filename or folder}: {error.strerror}").to_json()
    print(MARK + json.dumps(answer), flush=True)
    return 0


def hello(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    """What is here."""
    holder = holder_of(request.get("lock") or default_path())
    return {
        "state": "here",
        "python": platform.python_version(),
        "machine": this_machine().to_json(),
        "runtimes": found(),
        "free_bytes": shutil.disk_usage(folder).free,
        "busy": describe(holder) if holder else "",
    }


def ask(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    """The result of a job, or `running` when there is none yet after `wait_s` seconds.

    Whoever works on a job holds its lock, so it is started by one at a time; a result that appeared meanwhile is found
    by looking again under the lock. The lock passes to the process that works and ends with it.
    """
    job, stop_at = request["job"], time.monotonic() + request["wait_s"]
    files = JobFiles(folder, job["id"])
    while True:
        lock = files.lock()
        if lock is not None:
            try:
                result = files.result()
                if result is None:
                    _start(files, folder, job, request["starts"], lock)
                    continue
                if not result.get("final", True):
                    files.forget()
                return result
            finally:
                os.close(lock)
        if time.monotonic() > stop_at:
            return {"state": "running", "waits_for": _other_holder(job)}
        time.sleep(_LOOK_EVERY_S)


def _start(files: JobFiles, folder: str, job: dict[str, Any], most: int, lock: int) -> None:
    if files.starts() >= most:
        last = files.last_words()
        raise Refusal("crashed", f"it was started {most} times and ended each time without a result: {last}")
    files.reserve()
    files.log("start")
    environment = {**os.environ, **QUIET_MALLOC, "OMP_NUM_THREADS": str(job["threads"])}
    with open(files.errors, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, sys.argv[0], "work"],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,  # the connection's end must not end it
        )
    assert process.stdin
    process.stdin.write(json.dumps({"folder": folder, "job": job}).encode("utf-8") + b"\n")
    process.stdin.close()


def _other_holder(job: dict[str, Any]) -> str:
    holder = holder_of(job.get("lock") or default_path())
    return "" if holder.get("job") in (None, job["id"]) else describe(holder)
