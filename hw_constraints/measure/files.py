"""Measures artefacts on their runtimes, interleaved in one process that is set up for quiet timing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends import Arrays, Session, get_backend
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.measure.interleaving import Measurement, interleave, measurement_from_json
from bitwright.quant.errors import InputError

# Freed memory goes back to the system and faults in again, which makes latencies jump: keep it (mallopt(3)).
_QUIET_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
_WORKER = "bitwright.hw_constraints.measure.worker"
_MISUSE = 2


def measure_files(
    files: Mapping[str, tuple[Path, str]],
    *,
    threads: int = 1,
    inputs: Mapping[str, Arrays] | None = None,
    min_rounds: int = 20,
    max_seconds: float = 30.0,
    target_half_width: float = 0.01,
    seed: int = 0,
) -> Measurement:
    """Times files in this process; `measure_in_subprocess` is the steadier way.

    Args:
        files: path and backend's name of each candidate; the first is the reference of the ratios.
        threads: of each runtime.
        inputs: by candidate; standard normal numbers when not given.
        min_rounds: see `interleave`.
        max_seconds: see `interleave`; loading is not counted.
        target_half_width: see `interleave`.
        seed: of made-up inputs and of the order within rounds.

    Raises:
        InputError: a file, a runtime or an input is not usable.
        MissingExtraError: a runtime is not installed.
    """
    given = inputs or {}
    unknown = sorted(set(given) - set(files))
    if unknown:
        raise InputError(f"inputs for {unknown}; the candidates are {sorted(files)}")
    candidates, versions = {}, {}
    with pinned(threads):  # runtimes start their threads while loading: they inherit the processors
        for name, (path, runtime) in files.items():
            backend = get_backend(runtime)
            versions[name] = {runtime: backend.version()}
            session = backend.load(Path(path), threads=threads)
            batch = dict(given[name]) if name in given else made_up_inputs(session, name, seed)
            session.run(batch)
            candidates[name] = partial(session.run, batch)
    return interleave(
        candidates,
        min_rounds=min_rounds,
        max_seconds=max_seconds,
        target_half_width=target_half_width,
        threads=threads,
        seed=seed,
        versions=versions,
    )


def made_up_inputs(session: Session, name: str, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Standard normal numbers; a first dimension that is not static becomes 1.

    Raises:
        InputError: an input is not floating point, or another dimension is not static.
    """
    generator = np.random.default_rng(seed)
    batch = {}
    for spec in session.input_infos:
        if spec.shape is None or None in spec.shape[1:] or not spec.dtype.startswith("float"):
            raise InputError(f"{name}: input {spec.name!r} is {spec.dtype} of shape {spec.shape}: give inputs for it")
        batch[spec.name] = generator.standard_normal([dim or 1 for dim in spec.shape]).astype(spec.dtype)
    return batch


def measure_in_subprocess(
    files: Mapping[str, tuple[Path, str]],
    *,
    threads: int = 1,
    inputs: Mapping[str, Arrays] | None = None,
    **options: float,
) -> Measurement:
    """As `measure_files`, in a fresh process whose allocator keeps its memory.

    Raises:
        InputError: as there; or the process died, with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays = {f"{name}\n{key}": array for name, batch in (inputs or {}).items() for key, array in batch.items()}
        stored = Path(folder) / "inputs.npz"
        np.savez(stored, **arrays)  # type: ignore[arg-type]
        request = {
            "files": {name: [str(Path(path).absolute()), runtime] for name, (path, runtime) in files.items()},
            "inputs": str(stored),
            "options": {"threads": threads, **options},
        }
        done = subprocess.run(
            [sys.executable, "-m", _WORKER],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **_QUIET_MALLOC, "OMP_NUM_THREADS": str(threads)},
        )
    last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
    if done.returncode == _MISUSE:
        raise InputError(last)
    if done.returncode:
        raise InputError(f"the measuring process ended with {done.returncode}: {last}")
    return measurement_from_json(json.loads(done.stdout.splitlines()[-1]))
