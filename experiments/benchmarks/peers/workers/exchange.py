"""What a worker and the benchmark say to each other: a request in, an answer out, both JSON.

Standard library and NumPy alone, since every peer's environment has to run it.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to quantize.

    Attributes:
        network: see `networks.load_network`.
        method: one of the peer's methods.
        float_file: the float network as ONNX, batch 1.
        library: the folder with torchvision and the weights.
        calibration: .npy, float32 [images, 3, H, W].
        scored: .npy of the images whose logits are asked for; empty for none.
        folder: where results go.
        repeat: how often the calibration images are gone through, as if there were so many more.
    """

    network: str
    method: str
    float_file: str
    library: str
    calibration: str
    scored: str
    folder: str
    repeat: int = 1

    @cached_property
    def _stored(self) -> tuple[int, tuple[int, ...]]:
        """Where the images begin in the file, and their shape.

        They are read, not mapped: pages of a mapped file that were touched count as memory of the process.
        """
        mapped = np.load(self.calibration, mmap_mode="r")
        return mapped.offset, mapped.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image as the network takes it: (1, 3, H, W)."""
        return (1, *self._stored[1][1:])

    @property
    def count(self) -> int:
        """How many calibration images there are, repetitions included."""
        return self._stored[1][0] * self.repeat

    def image(self, index: int) -> Images:
        """One calibration image, float32 [1, 3, H, W], read from disk as it is used."""
        offset, (count, *one) = self._stored
        size = math.prod(one)
        place = offset + (index % count) * size * np.dtype(np.float32).itemsize
        return np.fromfile(self.calibration, np.float32, size, offset=place).reshape(1, *one)

    def batches(self, size: int) -> Iterator[Images]:
        """The calibration images in batches."""
        for start in range(0, self.count, size):
            yield np.concatenate([self.image(index) for index in range(start, min(start + size, self.count))])


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a peer made.

    Attributes:
        file: its artefact; empty where it writes none.
        forward: float32 images [n, 3, H, W] → logits [n, classes, …]; None where the artefact is to be scored.
        note: what a reader of the figures has to know.
    """

    file: str = ""
    forward: Callable[[Images], npt.NDArray[np.float32]] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request; times and memory are those of `quantize`, artefact included, loading excluded."""

    file: str
    logits: str
    wall_s: float
    peak_mb: float
    growth_mb: float
    note: str
    versions: dict[str, str]


def serve(
    packages: tuple[str, ...],
    load: Callable[[Request], Any],
    quantize: Callable[[Any, Request], Quantized],
) -> None:
    """Runs the request named on the command line and writes its answer.

    Args:
        packages: whose versions are reported.
        load: makes the peer's view of the float network.
        quantize: calibrates it, converts it and writes the artefact.
    """
    request = Request(**json.loads(Path(sys.argv[1]).read_text()))
    network = load(request)
    before_mb = peak_mb()
    start = time.perf_counter()
    quantized = quantize(network, request)
    wall_s = time.perf_counter() - start
    after_mb = peak_mb()
    logits = ""
    if request.scored and quantized.forward is not None:
        scored = np.load(request.scored, mmap_mode="r")
        parts = [quantized.forward(np.array(scored[start : start + 20])) for start in range(0, len(scored), 20)]
        logits = str(Path(request.folder) / "logits.npy")
        np.save(logits, np.concatenate(parts))
    answer = Answer(
        file=quantized.file,
        logits=logits,
        wall_s=wall_s,
        peak_mb=after_mb,
        growth_mb=after_mb - before_mb,
        note=quantized.note,
        versions={name: metadata.version(name) for name in packages},
    )
    Path(sys.argv[2]).write_text(json.dumps(asdict(answer), indent=1))


def peak_mb() -> float:
    """The largest resident memory of this process so far, in MB (10⁶ bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
