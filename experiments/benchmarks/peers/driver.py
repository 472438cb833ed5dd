"""Runs a peer in its own environment and reads what it made; results are kept by everything that decides them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.peers.environments import (
    LIBRARY,
    LIBRARY_REQUIREMENTS,
    PEERS,
    interpreter,
    is_installed,
)
from bitwright.experiments.benchmarks.peers.workers.exchange import Answer, Request
from bitwright.quant.errors import InputError

WORKERS = Path(__file__).parent / "workers"
TIMEOUT_S = 3600


@dataclass(frozen=True, kw_only=True)
class PeerJob:
    """One network quantized by one method of one peer.

    Attributes:
        peer: a name in `PEERS`.
        method: one of its methods.
        network: `mobilenet_v2` or `resnet18`.
        float_file: the float network as ONNX.
        calibration: .npy of the calibration images.
        scored: .npy of the images to score; None for none.
    """

    peer: str
    method: str
    network: str
    float_file: Path
    calibration: Path
    scored: Path | None = None

    @property
    def name(self) -> str:
        """For tables: `ort min_max`."""
        return f"{self.peer} {self.method}"


@dataclass(frozen=True, kw_only=True)
class PeerResult:
    """What a peer made; see `workers.exchange.Answer`."""

    job: PeerJob
    answer: Answer

    @property
    def file(self) -> Path | None:
        """Its artefact, if it writes one."""
        return Path(self.answer.file) if self.answer.file else None

    @property
    def logits(self) -> npt.NDArray[np.float32] | None:
        """Its own logits of the scored images, [scored, classes], if it scores itself."""
        if not self.answer.logits:
            return None
        loaded: npt.NDArray[np.float32] = np.load(self.answer.logits)
        return loaded


def run_peer(job: PeerJob, *, home: Path, cache: Path, fresh: bool = False) -> PeerResult:
    """Quantizes with a peer, one thread, in its own process.

    Args:
        job: what to run.
        home: the folder of the environments.
        cache: where results are kept.
        fresh: run it again although a result is kept (for wall time).

    Raises:
        InputError: the peer is not installed, or its worker failed; the message ends with its last lines.
    """
    peer = PEERS[job.peer]
    if not is_installed(peer, home):
        raise InputError(
            f"peer {peer.name!r} is not installed: python -m bitwright.experiments.benchmarks.setup_peers {peer.name}"
        )
    folder = cache / f"{job.peer}-{job.method}-{job.network}-{_digest(job)}"
    answer = folder / "answer.json"
    if fresh or not answer.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run_worker(job, folder, answer, home)
    return PeerResult(job=job, answer=Answer(**json.loads(answer.read_text())))


def _run_worker(job: PeerJob, folder: Path, answer: Path, home: Path) -> None:
    request = Request(
        network=job.network,
        method=job.method,
        float_file=str(job.float_file),
        library=str(home / LIBRARY),
        calibration=str(job.calibration),
        scored=str(job.scored or ""),
        folder=str(folder),
    )
    asked = folder / "request.json"
    asked.write_text(json.dumps(asdict(request), indent=1))
    partial = folder / "answer.partial"
    command = [interpreter(PEERS[job.peer], home), _script(job.peer), asked, partial]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment)
    (folder / "log.txt").write_text(ended.stdout + ended.stderr)
    if ended.returncode:
        last = "\n".join(line[:200] for line in ended.stderr.strip().splitlines()[-8:])
        raise InputError(f"peer {job.name!r} failed on {job.network} (log: {folder / 'log.txt'}):\n{last}")
    partial.rename(answer)


def _script(peer: str) -> Path:
    return WORKERS / f"{peer}_worker.py"


def _digest(job: PeerJob) -> str:
    """Of everything that decides the result: versions, worker code, inputs."""
    parts = [
        *PEERS[job.peer].requirements,
        *LIBRARY_REQUIREMENTS,
        *(file.read_text() for file in (_script(job.peer), WORKERS / "exchange.py", WORKERS / "networks.py")),
        *(f"{file.name} {file.stat().st_size}" for file in (job.float_file, job.calibration)),
        job.scored.name if job.scored else "",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
