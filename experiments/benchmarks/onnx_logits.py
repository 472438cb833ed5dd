"""Logits of an ONNX file on ONNX Runtime, exact on every processor.

The backend turns on the option against 16-bit saturation of u8 × s8 kernels where the processor needs it, for
everybody's file alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends.base import get_backend


def onnx_logits(file: Path, scored: Path, *, threads: int = 1) -> npt.NDArray[np.float32]:
    """Runs every image through the file's only input and first output.

    Args:
        file: an ONNX model with batch 1.
        scored: .npy, float32 [images, 3, height, width].
        threads: of the runtime.

    Returns:
        float32 [images, classes].
    """
    session = get_backend("onnxruntime").load(file, threads=threads)
    name, output = session.input_infos[0].name, session.output_infos[0].name
    images = np.load(scored, mmap_mode="r")
    return np.concatenate([session.run({name: np.array(image[None])})[output] for image in images])
