"""Asks a peer something in its own environment: JSON in, JSON out, answers kept by everything that decides them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitwright.experiments.benchmarks.peers.environments import OURS, PEERS, interpreter, is_installed
from bitwright.experiments.benchmarks.places import checkout
from bitwright.quant.errors import InputError

WORKERS = Path(__file__).parent / "workers"
TIMEOUT_S = 3600


def ask(
    peer: str,
    question: str,
    request: Mapping[str, Any],
    *,
    home: Path,
    cache: Path,
    files: Sequence[Path] = (),
    worker: str = "",
    rounds: bool = True,
) -> dict[str, Any]:
    """What the peer's worker answers, kept between runs.

    Args:
        peer: a name in `PEERS`, or `OURS`; `workers/PEER_worker.py` is called with the files of the request and the
            answer.
        worker: of another `workers/…_worker.py` of the same peer, its first part.
        question: what it is about, for file names and messages.
        request: anything JSON; the worker also finds `folder`, where it may leave files.
        home: the folder of the environments.
        cache: where answers are kept.
        files: whose contents decide the answer, too.
        rounds: whether our own answer hangs on how `quant.reconstruct` rounds weights.

    Raises:
        InputError: the peer is not installed, or its worker failed; the message ends with its last lines.
    """
    require_peer(peer, home)
    requirements = PEERS[peer].requirements if peer != OURS else ()
    parts = [*requirements, script(worker or peer).read_text(), json.dumps(request, sort_keys=True)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for file in [*files, *(_sources(request, rounds) if peer == OURS else ())]:
        digest.update(file.read_bytes())
    folder = cache / f"{peer}-{question}-{digest.hexdigest()[:12]}"
    answer = folder / "answer.json"
    if not answer.exists():
        run_worker(peer, question, {**request, "folder": str(folder)}, answer, home, worker=worker)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _sources(request: Mapping[str, Any], rounds: bool) -> list[Path]:
    """The arithmetic that our own answers follow from; of preparations where the request's method names one."""
    quant = checkout() / "quant"
    alone = ("calibrate.py", "fake_quantize.py", "plan.py", "qparams.py", "weights.py")
    folders = [quant / "reconstruct"] if rounds else []
    wishes = str(request.get("method", "")).split(",")
    if any((quant / "preparations" / f"{wish}.py").is_file() for wish in wishes):
        folders.append(quant / "preparations")
    return [*(quant / name for name in alone), *(file for folder in folders for file in sorted(folder.glob("*.py")))]


def require_peer(peer: str, home: Path) -> None:
    """Stops with what to type where a peer's environment does not stand.

    Raises:
        InputError: it does not.
    """
    if not is_installed(peer, home):
        raise InputError(
            f"peer {peer!r} is not installed: python -m bitwright.experiments.benchmarks.setup_peers {peer}"
        )


def run_worker(
    peer: str,
    question: str,
    request: Mapping[str, Any],
    answer: Path,
    home: Path,
    threads: int | None = 1,
    worker: str = "",
) -> None:
    """Runs a worker in the peer's environment; the answer's file appears at once or not at all.

    Args:
        peer: whose worker.
        question: what it is about, for messages.
        request: goes to `request.json` beside the answer.
        answer: the file to write.
        home: the folder of the environments.
        threads: of its OpenMP pools; None leaves them as the peer and the machine have them.
        worker: see `ask`.

    Raises:
        InputError: the worker failed.
    """
    folder = answer.parent
    folder.mkdir(parents=True, exist_ok=True)
    asked, partial, log = folder / "request.json", folder / "answer.partial", folder / "log.txt"
    asked.write_text(json.dumps(request, indent=1))
    command = [interpreter(peer, home), script(worker or peer), asked, partial]
    limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    environment = {**os.environ, **limits, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment)
    log.write_text(ended.stdout + ended.stderr)
    if ended.returncode:
        last = "\n".join(line[:200] for line in ended.stderr.strip().splitlines()[-8:])
        raise InputError(f"peer {peer!r} failed on {question} (log: {log}):\n{last}")
    partial.rename(answer)


def script(worker: str) -> Path:
    """A peer's worker, or another one of it."""
    return WORKERS / f"{worker}_worker.py"
