"""The float side of a comparison: the module, its ONNX file, its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bitwright.experiments.benchmarks.imagenet_sample import CROP
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.peers.workers.networks import load_network

OPSET = 20  # the newest that every runtime and peer here reads
BATCH = 20


def float_network(name: str, home: Path) -> torch.nn.Module:
    """A float network in eval mode, from the library under `home` (installed when it is not there)."""
    install_library(home)
    return load_network(name, home / LIBRARY)


def example_inputs() -> tuple[torch.Tensor]:
    """One image: float32 [1, 3, 224, 224]."""
    return (torch.zeros(1, 3, CROP, CROP),)


def float_file(name: str, *, home: Path, cache: Path) -> Path:
    """The network as ONNX, batch 1, input `input`, output `logits`; exported once."""
    file = cache / f"{name}-opset{OPSET}.onnx"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.onnx.export(
            float_network(name, home),
            example_inputs(),
            str(partial),
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        partial.rename(file)
    return file


def float_logits(name: str, scored: Path, *, home: Path, cache: Path) -> npt.NDArray[np.float32]:
    """The eager float network's logits, [scored, classes]; computed once for each file of images."""
    file = cache / f"{name}-{scored.stem}-float-logits.npy"
    if not file.exists():
        images = np.load(scored, mmap_mode="r")
        network = float_network(name, home)
        with torch.inference_mode():
            parts = [
                network(torch.from_numpy(np.array(images[start : start + BATCH]))).numpy()
                for start in range(0, len(images), BATCH)
            ]
        np.save(file, np.concatenate(parts))
    logits: npt.NDArray[np.float32] = np.load(file)
    return logits
