"""What a worker and the benchmark say to each other about a sentence encoder: token ids in, embeddings out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Forward = Callable[[Ids], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class EncoderRequest:
    """What to quantize.

    Attributes:
        method: one of the worker's.
        weights: of the float network, saved by torch.
        float_file: the network as ONNX, `ids` int64 [1, tokens].
        calibration: .npy of token ids, int64 [texts, tokens].
        scored: of those whose embeddings are asked for.
        folder: where results go.
    """

    method: str
    weights: str
    float_file: str
    calibration: str
    scored: str
    folder: str

    def texts(self) -> Ids:
        """The token ids to calibrate with."""
        loaded: Ids = np.load(self.calibration)
        return loaded


def serve_encoder(packages: tuple[str, ...], quantize: Callable[[EncoderRequest], Forward]) -> None:
    """Runs the request named on the command line and answers `{embeddings, wall_s, versions}`.

    Args:
        packages: whose versions are reported.
        quantize: gives the forward of the quantized network, for one text at a time.
    """
    request = EncoderRequest(**json.loads(Path(sys.argv[1]).read_text()))
    start = time.perf_counter()
    forward = quantize(request)
    wall_s = time.perf_counter() - start
    file = Path(request.folder) / "embeddings.npy"
    np.save(file, np.concatenate([forward(ids[None]) for ids in np.load(request.scored)]))
    versions = {name: metadata.version(name) for name in packages}
    Path(sys.argv[2]).write_text(
        json.dumps({"embeddings": str(file), "wall_s": wall_s, "versions": versions}, indent=1)
    )
