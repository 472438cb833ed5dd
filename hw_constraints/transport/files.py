"""Times files on a device as `measure_in_subprocess` times them here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bitwright.hw_constraints.backends import Arrays
from bitwright.hw_constraints.transport.content import arrays_content, file_content
from bitwright.hw_constraints.transport.device import Device
from bitwright.hw_constraints.transport.driver import JobResult, Retries, run_jobs
from bitwright.hw_constraints.transport.failures import DeviceError
from bitwright.hw_constraints.transport.job import Job
from bitwright.hw_constraints.transport.journal import Journal


def default_journal() -> Path:
    """Where jobs are written down: `$XDG_STATE_HOME/bitwright/jobs.sqlite` (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "bitwright" / "jobs.sqlite"


def measure_files_on(
    device: Device | str,
    files: Mapping[str, Path],
    *,
    runtime: str,
    threads: int = 1,
    inputs: Mapping[str, Arrays] | None = None,
    journal: Path | None = None,
    retries: Retries | None = None,
    say: Callable[[str], None] = lambda _: None,
    **options: float,
) -> JobResult:
    """Times files against each other on a device; the first is the reference.

    When this was cut off or killed, the same call goes on with it; else it measures anew.

    Args:
        device: the device or its address.
        files: path of each candidate.
        runtime: the runner's name of the runtime there.
        threads: of the runtime.
        inputs: by candidate; standard normal numbers when not given.
        journal: where it is written down; `default_journal()` when not given.
        retries: see `run_jobs`.
        say: see `run_jobs`.
        options: `min_rounds`, `max_seconds`, `target_half_width`, `seed`, `lock_wait_s`, `cool_s` of the job.

    Raises:
        InputError: a file is not there, or the address is none.
        DeviceError: the device cannot be used.
    """
    batches = {name: arrays_content(f"inputs of {name}", arrays) for name, arrays in (inputs or {}).items()}
    artefacts = {name: file_content(Path(path)) for name, path in files.items()}
    job = Job(artefacts=artefacts, runtime=runtime, inputs=batches, threads=threads, **options)  # type: ignore[arg-type]
    book = Journal(journal or default_journal())
    own = Device(device) if isinstance(device, str) else None
    place = own or device
    assert isinstance(place, Device)
    key = hashlib.sha256(f"{place.label} {place.address.folder} {job.id}".encode()).hexdigest()
    try:
        (result,) = run_jobs(place, [replace(job, nonce=book.nonce(key))], book, retries=retries, say=say)
    except DeviceError as error:
        if error.ends_the_job:
            book.finish(key)
        raise
    finally:
        if own:
            own.close()
    book.finish(key)
    return result
