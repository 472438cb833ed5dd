"""Runs a peer in its own environment and reads what it made; results are kept by everything that decides them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.peers.asking import require_peer, run_worker, script
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, LIBRARY_REQUIREMENTS, PEERS
from bitwright.experiments.benchmarks.peers.workers.exchange import Answer, Request


@dataclass(frozen=True, kw_only=True)
class PeerJob:
    """One network quantized by one method of one peer.

    Attributes:
        peer: a name in `PEERS`, or `OURS`.
        method: one of its methods; for ours the target.
        network: a name of torchvision's, or the file that describes a network trained here.
        float_file: the float network as ONNX.
        calibration: .npy of the calibration images.
        scored: .npy of the images to score; None for none.
        repeat: how often the calibration images are gone through.
        threads: of its OpenMP pools; None leaves them as the peer and the machine have them.
    """

    peer: str
    method: str
    network: str
    float_file: Path
    calibration: Path
    scored: Path | None = None
    repeat: int = 1
    threads: int | None = 1

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

    def score(self, scored: Path) -> npt.NDArray[np.float32]:
        """Logits of the scored images, [scored, classes]: its own, or its ONNX file's on ONNX Runtime."""
        if not self.answer.logits:
            return onnx_logits(Path(self.answer.file), scored)
        loaded: npt.NDArray[np.float32] = np.load(self.answer.logits)
        return loaded


def run_peer(job: PeerJob, *, home: Path, cache: Path, fresh: bool = False) -> PeerResult:
    """Quantizes with a peer in its own process.

    Args:
        job: what to run.
        home: the folder of the environments.
        cache: where results are kept.
        fresh: run it again although a result is kept (for wall time and memory).

    Raises:
        InputError: the peer is not installed, or its worker failed; the message ends with its last lines.
    """
    require_peer(job.peer, home)
    folder = cache / f"{job.peer}-{job.method}-{Path(job.network).stem}-{_digest(job)}"
    answer = folder / "answer.json"
    if fresh or not answer.exists():
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
        repeat=job.repeat,
    )
    run_worker(job.peer, f"{job.method} on {job.network}", asdict(request), answer, home, job.threads)


def _digest(job: PeerJob) -> str:
    """Of what decides the result: the peer's versions, how it is driven, the inputs."""
    peer = PEERS.get(job.peer)
    parts = [
        *(peer.requirements if peer else ()),
        *LIBRARY_REQUIREMENTS,
        script(job.peer).read_text(),
        *(f"{file.name} {file.stat().st_size}" for file in (job.float_file, job.calibration)),
        job.scored.name if job.scored else "",
        f"{job.repeat} {job.threads}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
