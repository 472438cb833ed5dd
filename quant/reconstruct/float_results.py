"""What layers give in float at the positions that are looked at, found in one forward of each sample and kept on disk.

The float network needs no walk (`walk`): nothing that is chosen changes it. A few positions of every layer are a
hundredth of what lives between its layers, and the file is read once, layer by layer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.reconstruct.layers import Layer


class FloatResults:
    """Results by layer and sample; float32, in a file without a name that goes with this object.

    Args:
        captured: the network in float, as it is run.
        layers: by the tensor that each makes there, its own result or that of the activation behind it.
        samples: arguments of `forward` at the captured batch size.
        states: incoming state of each sample, where the network has state.
    """

    def __init__(
        self,
        captured: CapturedModel,
        layers: Mapping[TensorRef, Layer],
        samples: Sequence[Arguments],
        states: Sequence[Mapping[str, torch.Tensor]],
    ) -> None:
        self._file = tempfile.TemporaryFile(prefix="bitwright-results-")  # noqa: SIM115 - closed with this object
        self._places: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        for sample in range(len(samples)):

            def note(ref: TensorRef, tensor: torch.Tensor, sample: int = sample) -> torch.Tensor:
                if ref in layers:
                    self._append(layers[ref].node.name, layers[ref].results(tensor, sample))
                return tensor

            captured.run(*samples[sample], state=dict(states[sample]) if states else None, transform=note)
        self._file.flush()

    def of(self, layer: Layer, sample: int) -> torch.Tensor:
        """`[G, R, n]`, at the positions of `Layer.results`."""
        place, shape = self._places[layer.node.name][sample]
        values = np.empty(shape, np.float32)
        os.preadv(self._file.fileno(), [values.data.cast("B")], place)
        return torch.from_numpy(values)

    def _append(self, name: str, results: torch.Tensor) -> None:
        self._places.setdefault(name, []).append((self._file.tell(), tuple(results.shape)))
        self._file.write(results.contiguous().numpy().data)
