"""The process that works on one job: waits for the device, measures, leaves the result."""

from __future__ import annotations

import getpass
import os
import time
import traceback
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.transport.runner import heat
from bitwright.hw_constraints.transport.runner.device_lock import default_path, held
from bitwright.hw_constraints.transport.runner.hashing import sha256_of
from bitwright.hw_constraints.transport.runner.job_files import JobFiles
from bitwright.hw_constraints.transport.runner.refusal import Refusal
from bitwright.hw_constraints.transport.runner.runtimes import runtime
from bitwright.quant.errors import InputError

_OPTIONS = ("min_rounds", "max_seconds", "target_half_width", "threads", "seed")


def work(folder: str, job: dict[str, Any]) -> None:
    """Does a job and keeps its result, which may be a refusal."""
    files = JobFiles(folder, job["id"])
    try:
        result = _measured(folder, job)
    except Refusal as refusal:
        result = refusal.to_json()
    except InputError as error:  # too many threads
        result = Refusal("unusable", str(error), final=True).to_json()
    except Exception as error:
        traceback.print_exc()
        result = Refusal("unusable", f"{type(error).__name__}: {error}").to_json()
    files.keep({**result, "job": job["id"]})
    files.log("done" if result["state"] == "measured" else "refused")


def _measured(folder: str, job: dict[str, Any]) -> dict[str, Any]:
    holder = {"user": _user(), "pid": os.getpid(), "job": job["id"]}
    with held(job.get("lock") or default_path(), job["lock_wait_s"], holder) as lock:
        artefacts = {name: _checked(folder, each, name) for name, each in job["artefacts"].items()}
        inputs = {name: _checked(folder, each, f"inputs of {name}") for name, each in job["inputs"].items()}
        options = {key: job[key] for key in _OPTIONS}
        return cooled(lambda: runtime(job["runtime"]).measure(artefacts, inputs, options, lock), job["cool_s"])


def cooled(measure: Any, limit_s: float, root: Path = Path("/")) -> dict[str, Any]:
    """Measures while nothing throttles; what was throttled is measured again as long as the waits are not used up.

    Args:
        measure: gives a record.
        limit_s: seconds to wait for the device to cool, all in all.
        root: of the file system; another one for tests.

    Returns:
        The result: the last record, with clocks and temperatures before and after, and what throttled it, if it was.
    """
    waited, tries = heat.wait_until_cool(limit_s, root), 0
    while True:
        tries += 1
        before, started = heat.reading(root), time.time()
        record = measure()
        after = heat.reading(root)
        throttling = heat.throttled(before, after)
        left = limit_s - waited
        if not throttling or left <= 0:
            break
        # What has throttled and has stopped already is tried again at once, so each try costs a second at least.
        waited += max(1.0, heat.wait_until_cool(left, root))
    conditions = {"before": before, "after": after, "throttled": throttling, "waited_s": waited, "tries": tries}
    measurement = {**record, "origin": "measured", "device": this_machine().to_json()}
    settings = measurement.pop("settings", {})
    return {
        "state": "measured",
        "measurement": measurement,
        "conditions": conditions,
        "settings": settings,
        "span": [started, time.time()],
    }


def _checked(folder: str, artefact: dict[str, str], name: str) -> str:
    path = os.path.join(folder, "store", artefact["file"])
    if not os.path.isfile(path):
        raise Refusal("wrong-hash", f"{name}: it is no longer there")
    found = sha256_of(path)
    if found != artefact["sha256"]:
        raise Refusal("wrong-hash", f"{name}: its SHA-256 is there {found}, not {artefact['sha256']}")
    return path


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as on Android
        return str(os.getuid())
