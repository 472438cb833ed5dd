"""Measures artefacts on their runtimes, interleaved in one process that is set up for quiet timing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.measure.interleaving import Measurement, interleave, measurement_from_json
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.hw_constraints.measure.process import ask_worker, now_at
from bitwright.quant.errors import InputError

_WORKER = "bitwright.hw_constraints.measure.worker"


def measure_files(
    files: Mapping[str, tuple[Path, str]],
    *,
    threads: int = 1,
    inputs: Mapping[str, Arrays] | None = None,
    min_rounds: int = 20,
    max_seconds: float = 30.0,
    target_half_width: float = 0.01,
    seed: int = 0,
    untimed_calls: int = 0,
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
        untimed_calls: see `interleave`.

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
            now_at(str(path), runtime)
            session = backend.load(Path(path), threads=threads)
            batch = dict(given[name]) if name in given else made_up_inputs(session, name, seed)
            session.run(batch)
            candidates[name] = partial(session.run, batch)
    now_at(
        " and ".join(str(path) for path, _ in files.values()),
        " and ".join(sorted({each for _, each in files.values()})),
    )
    return interleave(
        candidates,
        min_rounds=min_rounds,
        max_seconds=max_seconds,
        target_half_width=target_half_width,
        threads=threads,
        seed=seed,
        untimed_calls=untimed_calls,
        versions=versions,
    )


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
        return measurement_from_json(ask_worker(_WORKER, request, threads=threads))
